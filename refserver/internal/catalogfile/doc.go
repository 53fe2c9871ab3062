// Package catalogfile writes catalog documents as YAML and JSON, and reads them.
//
// Both forms have the same fields, see docs/catalog-document.md. What is written
// means the same to every reader of YAML, whether it knows version 1.1 or 1.2.
// What is read is YAML 1.2 with its core schema, or JSON, strictly: a document
// that two readers could take for different things is refused.
package catalogfile
