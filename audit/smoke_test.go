package audit_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
)

func TestSmoke(t *testing.T) {
	is := is.New(t)
	s, err := audit.NewSigner(audit.SignerName("inst"), bytes.Repeat([]byte{7}, 32))
	is.NoErr(err)
	v, err := audit.NewVerifiers(s.PublicKey())
	is.NoErr(err)
	e := audit.Event{Organization: "org", Action: audit.ActionCredentialVended, Outcome: audit.OutcomeOK, Salt: audit.NewSalt(),
		Actor: audit.Actor{Kind: "agent", ID: "a1"}, Details: map[string]string{"b": "\x01\"\\<&>\u2028", "a": ""},
		Changes: []audit.Change{{Kind: "grant", ID: "g", Revision: 1, Removed: true}, {Kind: "grant", ID: "g", Revision: 2, State: make([]byte, 32)}}}
	x, err := audit.Extend(audit.Head{Epoch: 1}, audit.Tree{}, []audit.Event{e}, s)
	is.NoErr(err)
	t.Logf("%s", x.Contents[0])
	back, err := audit.Parse(x.Contents[0])
	is.NoErr(err)
	is.Equal(back, e)
	_, err = audit.CheckHead(x.Head, "inst", "org", v)
	is.NoErr(err)
	n := 0
	src := &audit.Source{Head: x.Head.Signed, Lines: func(context.Context) (audit.Line, error) {
		if n++; n > 1 {
			return audit.Line{}, io.EOF
		}
		return audit.Line{Content: x.Contents[0], Leaf: x.Leaves[0]}, nil
	}}
	var buf bytes.Buffer
	is.NoErr(audit.Export(t.Context(), &buf, audit.ExportHeader{Origin: audit.Origin("inst", "org", 1), PublicKeys: v.Keys()}, src))
	t.Logf("%s", buf.String())
	r, err := audit.NewExportReader(&buf)
	is.NoErr(err)
	rep, err := audit.Verify(t.Context(), audit.Log{Installation: "inst", Organization: "org", Entries: r, Verifiers: v})
	is.NoErr(err)
	is.True(rep.OK())
	is.Equal(rep.Proven, int64(1))
}
