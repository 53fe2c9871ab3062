package audit_test

import (
	"encoding/json"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// TestReceiptAppendsItsJSON: the members, their order and their values are those
// that encoding/json makes of a receipt.
func TestReceiptAppendsItsJSON(t *testing.T) {
	t.Parallel()
	for _, r := range []audit.Receipt{
		{},
		{Origin: "agentkey/inst/org/1", Index: 7, Leaf: audit.Hash{1, 2, 255}, Size: 9, Proof: []audit.Hash{{3}, {4}}, Checkpoint: "a\n9\nAA==\n\n— name \"x\"\\ +/=\n"},
		{Origin: "o", Proof: []audit.Hash{}},
	} {
		is := is.New(t)
		want, err := json.Marshal(r)
		is.NoErr(err)
		is.Equal(string(r.AppendJSON([]byte("[")))[1:], string(want))
	}
}
