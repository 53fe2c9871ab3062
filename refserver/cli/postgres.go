package cli

import (
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

var errInsecureDatabase = &usageError{"the database is on another machine, and the connection would not be both encrypted and checked: " +
	"add sslmode=verify-full to its URL, or give --insecure-database if the network itself is trusted"}

// execMode is the parameter that keeps the driver from preparing by itself.
const execMode = "default_query_exec_mode"

// locatePostgres reads the URL of a Postgres database. Whoever stands between
// this program and its database could change what access is decided on, so that
// any host but this machine needs sslmode=verify-full, unless the operator
// overrides that.
func (f databaseFlags) locatePostgres() (location, error) {
	if f.Schema != "" && !schemaName.MatchString(f.Schema) {
		return location{}, &usageError{"--schema must be a plain name: lower-case letters, digits and underscores, at most 63"}
	}
	u, query, ok := parsePostgres(f.Database)
	if !ok {
		return location{}, errDatabase // the parser's own error would quote the password
	}
	at := location{
		dsn: f.Database, name: (&url.URL{Scheme: "postgres", Host: u.Host, Path: u.Path}).String(), schema: f.Schema,
		unchecked: !onThisMachine(u, query) && !checksServer(query),
	}
	if at.unchecked && !f.InsecureDatabase {
		return location{}, errInsecureDatabase
	}
	if at.unprepared = f.Unprepared; at.unprepared && !query.Has(execMode) {
		separator := "?"
		if strings.Contains(at.dsn, "?") {
			separator = "&"
		}
		at.dsn += separator + execMode + "=exec"
	}
	return at, nil
}

// parsePostgres reads a URL that the driver and net/url can't read differently:
// the two disagree on what ends a password and on fragments.
func parsePostgres(text string) (*url.URL, url.Values, bool) {
	u, err := url.Parse(text)
	if err != nil || strings.Contains(text, "#") {
		return nil, nil, false
	}
	_, rest, _ := strings.Cut(text, "://")
	authority, _, _ := strings.Cut(rest, "/")
	before, after, _ := strings.Cut(authority, "?")
	if strings.Count(before, "@") > 1 || strings.Contains(after, "@") {
		return nil, nil, false
	}
	query, err := url.ParseQuery(u.RawQuery)
	return u, query, err == nil
}

// onThisMachine reports whether every host that the URL names is a loopback
// address or the directory of a Unix socket. One that names none leaves the
// choice to the driver's environment, and is not taken for this machine.
func onThisMachine(u *url.URL, query url.Values) bool {
	var hosts []string
	if u.Host != "" {
		for host := range strings.SplitSeq(u.Host, ",") {
			hosts = append(hosts, (&url.URL{Host: host}).Hostname())
		}
	}
	for _, value := range query["host"] {
		hosts = append(hosts, strings.Split(value, ",")...)
	}
	elsewhere := func(host string) bool {
		a, err := netip.ParseAddr(host)
		return host != "localhost" && !strings.HasPrefix(host, "/") && (err != nil || !a.Unmap().IsLoopback())
	}
	return len(hosts) > 0 && !slices.ContainsFunc(hosts, elsewhere)
}

// checksServer reports whether the connection is encrypted and the server's
// certificate and name are checked, however the driver takes repeated parameters.
func checksServer(query url.Values) bool {
	modes := query["sslmode"]
	return len(modes) > 0 && len(query["ssl"]) == 0 && !slices.ContainsFunc(modes, func(m string) bool { return m != "verify-full" })
}
