// Package adminapi is the API that administrators and their tools speak: an
// http.Handler over a Manager.
//
//	mux := http.NewServeMux()
//	mux.Handle("/api/admin/", adminapi.New(manager, adminapi.Options{}))
//
// Each request carries an administrator's token. The Manager authenticates it
// and checks each operation against the one table of operation and role; this
// package translates. Answers are {"data": …} in camelCase. No answer ever holds
// a stored credential or a digest of a key.
package adminapi
