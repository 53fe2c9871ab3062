// Package anchor keeps signed heads of logs elsewhere than in the database: in files
// on another volume, with a webhook, or with a witness of the C2SP protocol. Each
// implements agentkey.Anchor; hosts that embed the library may use them too.
package anchor

import "errors"

// ErrConfig is a setting that can't be used. Its text holds no secret.
var ErrConfig = errors.New("anchor: configuration")
