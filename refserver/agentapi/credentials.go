package agentapi

import (
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

// errOrigin is the answer to a web page that wants a credential and is not of an
// allowed origin: whatever key it holds, a browser is no place for it.
var errOrigin = &exchange.Error{
	Status: http.StatusForbidden, Code: "origin", Text: "credentials are not given to this web page",
	Hint: "Fetch the credential from your own process, without an Origin header, or have an administrator of the server allow the origin.",
}

// authOAuth is the auth type whose credential may be JSON.
const authOAuth = "oauth_token"

// credentials is GET /api/tools/{tool}/credentials: the vend.
func (a *api) credentials(x *exchange.Exchange) error {
	if x.FromForeignPage() {
		return errOrigin
	}
	caller, _, err := a.admit(x, ratelimit.TierCredential)
	if err != nil {
		return err
	}
	// A malformed id is looked for too: the vend decides on key and agent first.
	tool, _ := x.PathID("tool_id")
	v, err := a.manager.Vend(x.Brief(), caller, tool)
	if err != nil {
		return err
	}
	defer v.Credential.Destroy()
	x.LimitHeaders(ratelimit.TierCredential, v.Limit)
	h, values := x.Header(), []string{"no-store, private", "no-cache"}
	h["Cache-Control"], h["Pragma"] = values[0:1:1], values[1:2:2]
	return x.Secret(http.StatusOK, vended(v))
}

func vended(v *agentkey.Vended) *exchange.ObjectWriter {
	o := new(exchange.ObjectWriter)
	o.Text("tool_id", v.Tool.ID)
	o.Text("tool_name", v.Tool.Name)
	o.Text("auth_type", v.Tool.AuthType)
	if v.Tool.AuthType == authOAuth {
		o.SecretJSON("credential", v.Credential)
	} else {
		o.Secret("credential", v.Credential)
	}
	o.Text("instructions", v.Tool.Instructions)
	o.Text("suggest_instructions_endpoint", "/api/tools/"+v.Tool.ID+"/instructions/suggest")
	if v.ExpiresAt != 0 {
		o.Field("expires_at", exchange.Time(v.ExpiresAt))
	}
	if left := vendsLeft(v.VendsLeft); left != nil {
		o.Field("vends_left", *left)
	}
	o.Field("audit_receipt", v.Receipt)
	return o
}
