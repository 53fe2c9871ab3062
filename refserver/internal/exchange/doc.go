// Package exchange is the HTTP side that all of the server's APIs share: one
// request and its response.
//
// A [Router] gives every response its security headers and request id, answers
// unknown paths, wrong methods, errors and panics in JSON, and maps the
// Manager's families of errors to statuses in one table. Handlers get an
// [Exchange] and only translate.
package exchange
