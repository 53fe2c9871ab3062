package anchor

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/outgoing"
)

// WitnessConfig describes a witness.
type WitnessConfig struct {
	// URL is the submission prefix, to which /add-checkpoint is added; https, or
	// http on this machine. Required.
	URL string

	// Key is the witness's verifier key for cosignatures, "NAME+HASH+KEY". Required.
	Key string

	// Roots are the authorities that its certificate is checked with. Nil: the
	// system's.
	Roots *x509.CertPool
}

// Witness has heads cosigned by a witness (C2SP tlog-witness and tlog-cosignature,
// version 1). The witness remembers for each origin what it cosigned last, and
// cosigns only what a proof shows to extend that. It must know the origin of every
// log, also that of every new epoch.
type Witness struct {
	url    *url.URL
	key    cosigner
	client *http.Client

	mu    sync.Mutex
	sizes map[string]int64 // by origin: what it cosigned last, as far as we know
}

// NewWitness checks the configuration. It connects to nothing.
func NewWitness(c WitnessConfig) (*Witness, error) {
	u, err := outgoing.ParseURL("witness", c.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	key, err := parseCosigner(c.Key)
	if err != nil {
		return nil, err
	}
	return &Witness{url: u.JoinPath("add-checkpoint"), key: key, client: outgoing.Client(u, c.Roots), sizes: make(map[string]int64)}, nil
}

// Name is "witness:" and the name of its key.
func (w *Witness) Name() string { return "witness:" + w.key.name }

// Keep has the head cosigned.
func (w *Witness) Keep(ctx context.Context, h *agentkey.AnchorHead) error {
	size, known := w.size(h.Origin)
	if !known {
		var err error
		if size, err = w.probe(ctx, h); err != nil {
			return err
		}
	}
	const tries = 3
	for range tries {
		proof, err := h.FollowsSize(ctx, size)
		if err != nil {
			return err
		}
		status, answer, err := w.add(ctx, h, size, proof)
		switch {
		case err != nil:
			return err
		case status == http.StatusOK:
			if err := w.key.verify(h.Signed, answer); err != nil {
				return err
			}
			w.remember(h.Origin, h.Size)
			return nil
		case status == http.StatusUnprocessableEntity:
			// Our proof leads to our root: so it is not ours that it cosigned.
			return agentkey.ErrRolledBack
		case status != http.StatusConflict:
			return refusal(status)
		}
		has, err := parseSize(answer)
		if err != nil {
			return err
		}
		w.remember(h.Origin, has)
		if has == size {
			return agentkey.ErrRolledBack // of this size it cosigned another root
		}
		size = has
	}
	return errors.New("anchor: witness: its size keeps changing")
}

func (w *Witness) size(origin string) (int64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	size, ok := w.sizes[origin]
	return size, ok
}

func (w *Witness) remember(origin string, size int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sizes[origin] = size
}

// probe asks for the size that the witness cosigned last, by a request that it can't
// fulfil: from one leaf on, without a proof. Nothing is cosigned that was not yet.
func (w *Witness) probe(ctx context.Context, h *agentkey.AnchorHead) (int64, error) {
	status, answer, err := w.add(ctx, h, 1, nil)
	switch {
	case err != nil:
		return 0, err
	case status == http.StatusConflict:
		return parseSize(answer)
	case status == http.StatusUnprocessableEntity, status == http.StatusOK && h.Size == 1:
		return 1, nil
	}
	return 0, refusal(status)
}

func refusal(status int) error {
	switch status {
	case http.StatusNotFound:
		return errors.New("anchor: witness: it does not know the log's origin")
	case http.StatusForbidden:
		return errors.New("anchor: witness: it does not know the log's key")
	}
	return fmt.Errorf("anchor: witness: answered %d", status)
}

// add sends a request of the protocol.
func (w *Witness) add(ctx context.Context, h *agentkey.AnchorHead, old int64, proof []audit.Hash) (int, []byte, error) {
	var body bytes.Buffer
	fmt.Fprintf(&body, "old %d\n", old)
	for _, hash := range proof {
		fmt.Fprintln(&body, hash.String())
	}
	body.WriteByte('\n')
	body.Write(h.Signed)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), &body)
	if err != nil {
		return 0, nil, fmt.Errorf("anchor: witness: %w", outgoing.Plain(err))
	}
	r.Header.Set("User-Agent", "agentkey")
	r.Header.Set("Content-Type", "application/octet-stream")
	status, _, answer, err := fetch(w.client, r, "witness")
	return status, answer, err
}

func parseSize(answer []byte) (int64, error) {
	text, ok := strings.CutSuffix(string(answer), "\n")
	n, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return 0, errors.New("anchor: witness: answered 409 without a size")
	}
	return n, nil
}
