package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// trustFlags are the keys that the caller trusts. They come from elsewhere than
// what is checked with them.
type trustFlags struct {
	PublicKey []string `required:"" placeholder:"KEY" sep:"none" help:"The log's public key as serve printed it; repeat it for former keys."`
}

func (f trustFlags) verifiers() (*audit.Verifiers, error) { return verifiersOf(f.PublicKey) }

// verifiersOf reads public keys, also several in one argument as audit key prints them.
func verifiersOf(given []string) (*audit.Verifiers, error) {
	var keys []string
	for _, one := range given {
		keys = append(keys, strings.Fields(one)...)
	}
	v, err := audit.NewVerifiers(keys...)
	if err != nil || len(keys) == 0 {
		return nil, usagef("--public-key is not the public key of a log")
	}
	return v, nil
}

type auditKey struct{ readFlags }

// Run prints the log's public keys.
func (c *auditKey) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	keys, err := admin.PublicKeys(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(keys)
	}
	for _, key := range keys {
		if err := s.say("%s", clean(key)); err != nil {
			return err
		}
	}
	return nil
}

type auditCheckpoint struct {
	serverFlags
	Out string `placeholder:"FILE" help:"Write it to this file. Default: standard output."`
}

// Run fetches the newest signed head.
func (c *auditCheckpoint) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	signed, err := admin.Checkpoint(ctx)
	if err != nil {
		return err
	}
	return s.deliver(c.Out, []byte(signed))
}

// deliver writes to a file, which is then whole, or to standard output.
func (s *session) deliver(path string, text []byte) error {
	write := func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	}
	if path == "" {
		return write(s.stdout)
	}
	return writeWhole(path, write)
}

type auditProve struct {
	serverFlags
	Seq  *int64 `placeholder:"N" help:"Prove that the event of this number is in the log…"`
	Size int64  `placeholder:"N" help:"…at this size. Default: the latest."`
	From *int64 `placeholder:"N" help:"Prove that the log only grew since this size…"`
	To   int64  `placeholder:"N" help:"…up to this one. Default: the latest."`
	Out  string `placeholder:"FILE" help:"Write the proof to this file. Default: standard output."`
}

// Run fetches a proof.
func (c *auditProve) Run(ctx context.Context, s *session) error {
	if (c.Seq == nil) == (c.From == nil) || c.Seq == nil && c.Size != 0 || c.From == nil && c.To != 0 {
		return usagef("give either --seq and perhaps --size, or --from and perhaps --to")
	}
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	var proof json.RawMessage
	if c.Seq != nil {
		proof, err = admin.InclusionProof(ctx, *c.Seq, c.Size)
	} else {
		proof, err = admin.ConsistencyProof(ctx, *c.From, c.To)
	}
	if err != nil {
		return err
	}
	return s.deliver(c.Out, append(proof, '\n'))
}

// readSmall reads a whole file of at most limit bytes.
func readSmall(path, what string, limit int64) ([]byte, error) {
	f, err := openNamed(path, what)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, cause(err))
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: is longer than %d bytes", what, limit)
	}
	return text, nil
}

// openCheckpoint opens a signed checkpoint of a file.
func openCheckpoint(path string, v *audit.Verifiers) (audit.Checkpoint, error) {
	signed, err := readSmall(path, "checkpoint", audit.MaxCheckpoint)
	if err != nil {
		return audit.Checkpoint{}, err
	}
	c, err := audit.OpenCheckpoint(signed, v)
	if err != nil {
		return c, fmt.Errorf("checkpoint: %w", err)
	}
	return c, nil
}

type auditCheck struct {
	trustFlags
	File    string `arg:"" help:"A proof as audit prove wrote it, or a signed checkpoint."`
	Against string `placeholder:"FILE" help:"A signed checkpoint that you kept: the proof must hold for it."`
}

// Run checks a proof or a checkpoint, without any server.
func (c *auditCheck) Run(_ context.Context, s *session) error {
	v, err := c.verifiers()
	if err != nil {
		return err
	}
	text, err := readSmall(c.File, "proof", audit.MaxProof)
	if err != nil {
		return err
	}
	var kept *audit.Checkpoint
	if c.Against != "" {
		opened, err := openCheckpoint(c.Against, v)
		if err != nil {
			return err
		}
		kept = &opened
	}
	var kind struct {
		Inclusion   json.RawMessage `json:"inclusion_proof"`
		Consistency json.RawMessage `json:"consistency_proof"`
	}
	switch err := json.Unmarshal(text, &kind); {
	case err != nil:
		return s.checkHead(text, v, kept)
	case kind.Consistency != nil:
		return s.checkConsistency(text, v, kept)
	case kind.Inclusion != nil:
		return s.checkInclusion(text, v, kept)
	}
	return errors.New("proof: is neither a proof nor a signed checkpoint")
}

// checkHead checks a signed checkpoint alone.
func (s *session) checkHead(text []byte, v *audit.Verifiers, kept *audit.Checkpoint) error {
	if kept != nil {
		return usagef("--against needs a proof: a checkpoint alone shows nothing of an earlier one")
	}
	c, err := audit.OpenCheckpoint(text, v)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return s.say("ok, %s was signed at %s", clean(c.Origin), plural(c.Size, "event"))
}

func (s *session) checkInclusion(text []byte, v *audit.Verifiers, kept *audit.Checkpoint) error {
	r, err := audit.ParseReceipt(text)
	if err != nil {
		return err
	}
	switch {
	case kept != nil:
		err = r.VerifyIn(*kept)
	case r.Checkpoint == "":
		return usagef("no checkpoint of this size was kept by the server: give the one that you kept with --against")
	default:
		_, err = r.Verify(v)
	}
	if err != nil {
		return err
	}
	return s.say("ok, event %d with leaf hash %s is in %s at %s", r.Index, r.Leaf, clean(r.Origin), plural(r.Size, "event"))
}

func (s *session) checkConsistency(text []byte, v *audit.Verifiers, kept *audit.Checkpoint) error {
	p, err := audit.ParseConsistency(text)
	if err != nil {
		return err
	}
	var ends [2]audit.Checkpoint
	for i, signed := range []string{p.Earlier, p.Later} {
		switch size := []int64{p.From, p.To}[i]; {
		case kept != nil && kept.Size == size:
			ends[i] = *kept
		case signed != "":
			if ends[i], err = audit.OpenCheckpoint([]byte(signed), v); err != nil {
				return fmt.Errorf("checkpoint of %s: %w", plural(size, "event"), err)
			}
		case size == 0:
			var empty audit.Tree
			ends[i] = audit.Checkpoint{Origin: p.Origin, Root: empty.Root()} // nobody signs what everything extends
		default:
			return usagef("the server kept no checkpoint of %s: give the one that you kept with --against", plural(size, "event"))
		}
	}
	if kept != nil && kept.Size != p.From && kept.Size != p.To {
		return usagef("the proof is from %d to %d events, the checkpoint that you kept is of %d", p.From, p.To, kept.Size)
	}
	if err := p.Verify(ends[0], ends[1]); err != nil {
		return err
	}
	return s.say("ok, %s at %s extends itself at %s", clean(ends[1].Origin), plural(p.To, "event"), plural(p.From, "event"))
}

type auditVerifyReceipt struct {
	trustFlags
	File  string `arg:"" help:"The receipt of a vend: the audit_receipt of the server's answer."`
	Proof string `placeholder:"FILE" help:"A later proof of the same event, as audit prove --seq wrote it."`
}

// Run checks a receipt, without any server.
func (c *auditVerifyReceipt) Run(_ context.Context, s *session) error {
	v, err := c.verifiers()
	if err != nil {
		return err
	}
	text, err := readSmall(c.File, "receipt", audit.MaxProof)
	if err != nil {
		return err
	}
	r, err := audit.ParseReceipt(text)
	if err != nil {
		return err
	}
	signed, err := r.Verify(v)
	if err != nil {
		return err
	}
	if err := s.say("ok, event %d with leaf hash %s is in %s at %s", r.Index, r.Leaf, clean(signed.Origin), plural(signed.Size, "event")); err != nil {
		return err
	}
	if c.Proof == "" {
		return nil
	}
	if text, err = readSmall(c.Proof, "proof", audit.MaxProof); err != nil {
		return err
	}
	later, err := audit.ParseReceipt(text)
	if err != nil {
		return err
	}
	if later.Index != r.Index || later.Leaf != r.Leaf || !sameLog(later.Origin, r.Origin) {
		if later.Origin != r.Origin && sameLog(later.Origin, r.Origin) && later.Index == r.Index {
			return fmt.Errorf("the receipt is of an epoch that was lost: the log was continued from an older state, and has another event there: %w", audit.ErrProof)
		}
		return fmt.Errorf("the later proof is of another event: %w", audit.ErrProof)
	}
	if signed, err = later.Verify(v); err != nil {
		return fmt.Errorf("later proof: %w", err)
	}
	if later.Origin != r.Origin {
		if err := s.say("the log has gone on in a later epoch, after an older state of it was put back: what the receipt covers is still in it"); err != nil {
			return err
		}
	}
	return s.say("ok, it is still there at %s", plural(signed.Size, "event"))
}

// sameLog says whether two origins differ in their epoch at most.
func sameLog(a, b string) bool {
	return a[:strings.LastIndexByte(a, '/')+1] == b[:strings.LastIndexByte(b, '/')+1]
}
