package refserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/strictjson"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// Bounds of one report.
const (
	maxLeakBody = 128 << 10
	maxLeaks    = 100
)

var (
	errLeaksOff = &exchange.Error{
		Status: http.StatusNotFound, Code: "leak_reports_off", Text: "reports of leaks are not taken here",
		Hint: "Tell an administrator, who can report the key with `agentkey incident leaked-key`.",
	}
	errLeakSigner = &exchange.Error{
		Status: http.StatusUnauthorized, Code: "unknown_signer", Text: "the report is not signed by a known scanner",
		Hint: "Sign the body with ECDSA on P-256 and SHA-256, and send it as Github-Public-Key-Signature.",
	}
)

// leakLabel is an answer to one finding, in the form that GitHub's programme for
// partners of secret scanning reads.
type leakLabel struct {
	TokenHash string `json:"token_hash"` // SHA-256, in hexadecimal: the token itself is never sent back
	TokenType string `json:"token_type"`
	Label     string `json:"label"` // true_positive: known here; false_positive: not
}

// leaks is POST /leaked-keys: anybody who has a key may stop it.
func (s *Server) leaks(x *exchange.Exchange) error {
	if _, err := s.manager.AdmitAddress(x.Ctx(), x.Context.Address); err != nil {
		return err
	}
	if !s.settings.LeakReports {
		return errLeaksOff
	}
	if x.MediaType() != "application/json" {
		return exchange.InvalidField("input", "must be sent as application/json")
	}
	body, err := x.Text(exchange.Body{Limit: maxLeakBody})
	if err != nil {
		return err
	}
	defer body.Destroy()
	if len(s.settings.signers) > 0 && !signedBy(s.settings.signers, body.Bytes(), x.Request.Header.Get("Github-Public-Key-Signature")) {
		return errLeakSigner
	}
	v, err := strictjson.Parse(body.Bytes())
	if err != nil || v.Kind() != strictjson.Array || len(v.Items()) == 0 || len(v.Items()) > maxLeaks {
		return exchange.InvalidField("input", "must be a JSON array of 1 to 100 findings")
	}
	for _, item := range v.Items() {
		if item.Kind() != strictjson.Object || item.Member("token").Kind() != strictjson.String {
			return exchange.InvalidField("token", "must be a string in every finding")
		}
	}
	out := make([]leakLabel, 0, len(v.Items()))
	for i, item := range v.Items() {
		if i > 0 { // guessing by reports costs what guessing by calls does
			if _, err := s.manager.AdmitAddress(x.Ctx(), x.Context.Address); err != nil {
				return err
			}
		}
		label, err := s.leak(x, item)
		if err != nil {
			return err
		}
		out = append(out, label)
	}
	return x.JSON(http.StatusOK, out)
}

func (s *Server) leak(x *exchange.Exchange, item strictjson.Value) (leakLabel, error) {
	token := item.Member("token")
	secret := vault.NewSecret(token.AppendText(make([]byte, 0, token.Size())))
	defer secret.Destroy()
	leaked, err := s.manager.ReportLeak(x.Ctx(), x.Context, agentkey.LeakReport{
		Secret: secret, Source: string(item.Member("source").AppendText(nil)), URL: string(item.Member("url").AppendText(nil)),
	})
	if err != nil {
		return leakLabel{}, err
	}
	sum := sha256.Sum256(secret.Bytes())
	l := leakLabel{TokenHash: hex.EncodeToString(sum[:]), TokenType: string(leaked), Label: "true_positive"}
	if leaked == agentkey.LeakedNothing {
		l.TokenType, l.Label = "unknown", "false_positive"
	}
	return l, nil
}

// signedBy says whether one of the keys has signed the body.
func signedBy(keys []*ecdsa.PublicKey, body []byte, signature string) bool {
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return false
	}
	sum := sha256.Sum256(body)
	for _, k := range keys {
		if ecdsa.VerifyASN1(k, sum[:], sig) {
			return true
		}
	}
	return false
}

// readSigners reads the public keys of scanners.
func (s *settings) readSigners() error {
	if len(s.LeakSigners) > 0 && !s.LeakReports {
		return errors.New("refserver: Config.LeakSigners needs LeakReports")
	}
	for _, path := range s.LeakSigners {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("refserver: Config.LeakSigners: %w", err)
		}
		found := 0
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
			key, ok := parsed.(*ecdsa.PublicKey)
			if err != nil || !ok || key.Curve != elliptic.P256() {
				return errors.New("refserver: Config.LeakSigners: a file holds something else than public keys of ECDSA on P-256, in PEM")
			}
			s.signers = append(s.signers, key)
			found++
		}
		if found == 0 {
			return errors.New("refserver: Config.LeakSigners: a file holds no public key in PEM")
		}
	}
	return nil
}
