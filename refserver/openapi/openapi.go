// Package openapi holds the description of the server's API: an OpenAPI 3.1
// document with every route, field, header and status.
//
// It is written by hand, and the tests hold it against the server: the routes
// are the same both ways, and every exchange of the tests over HTTP is as the
// document says.
package openapi

import _ "embed"

//go:embed openapi.json
var document string

// Document returns the document, in JSON. The bytes are the caller's.
func Document() []byte { return []byte(document) }
