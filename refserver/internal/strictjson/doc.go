// Package strictjson reads the JSON text of a request without guessing.
//
// Where encoding/json mends or picks, this package refuses: duplicate member
// names, invalid UTF-8, lone surrogates, anything after the value, nesting
// deeper than a bound. And it makes no string of a value that was not asked
// for: a Value refers to the bytes it was parsed from, so that a credential in
// a body is decoded once, straight into bytes that its owner can zero.
package strictjson
