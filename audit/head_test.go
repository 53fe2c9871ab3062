package audit_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
)

func TestCheckHead(t *testing.T) {
	t.Parallel()
	b := newLogbook(t, organization, 100)
	older := newLogbook(t, organization, 99)
	v := verifiersOf(t, b.signer)
	tree, err := audit.CheckHead(b.head, installation, organization, v)
	is.New(t).NoErr(err)
	is.New(t).Equal(tree, b.tree)

	tests := []struct {
		name   string
		damage func(*audit.Head)
		want   error
	}{
		{"edge edited", func(h *audit.Head) { h.Edge = bytes.Clone(h.Edge); h.Edge[40] ^= 1 }, audit.ErrMismatch},
		{"edge cut", func(h *audit.Head) { h.Edge = h.Edge[32:] }, audit.ErrMismatch},
		{"edge of another size", func(h *audit.Head) { h.Edge = older.head.Edge }, audit.ErrMismatch},
		{"size", func(h *audit.Head) { h.Size = 81 }, audit.ErrMismatch},
		{"size and edge put back", func(h *audit.Head) { h.Size, h.Edge = older.head.Size, older.head.Edge }, audit.ErrMismatch},
		{"negative size", func(h *audit.Head) { h.Size = -1 }, audit.ErrMismatch},
		{"epoch", func(h *audit.Head) { h.Epoch = 2 }, audit.ErrMismatch},
		{"signature put back", func(h *audit.Head) { h.Signed = older.head.Signed }, audit.ErrMismatch},
		{"of another organization", func(h *audit.Head) { *h = newLogbook(t, "org-2", 100).head }, audit.ErrMismatch},
		{"unsigned", func(h *audit.Head) { h.Signed = nil }, audit.ErrFormat},
		{"zero", func(h *audit.Head) { *h = audit.Head{} }, audit.ErrFormat},
		{"signature edited", func(h *audit.Head) { h.Signed = bytes.Replace(h.Signed, []byte("\n100\n"), []byte("\n101\n"), 1) }, audit.ErrSignature},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := b.head
			tt.damage(&h)
			if _, err := audit.CheckHead(h, installation, organization, v); !errors.Is(err, tt.want) {
				t.Fatalf("want %v, got %v", tt.want, err)
			}
		})
	}
	_, err = audit.CheckHead(b.head, "inst-2", organization, v)
	is.New(t).True(errors.Is(err, audit.ErrMismatch))
}

func TestExtend(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	one := newLogbook(t, organization, 30)
	s := newSigner(t, installation, "a")
	events := make([]audit.Event, 30)
	for i := range events {
		parsed, err := audit.Parse(one.lines[i].Content)
		is.NoErr(err)
		events[i] = parsed
	}
	x, err := audit.Extend(audit.Head{Epoch: 1}, audit.Tree{}, events, s)
	is.NoErr(err)
	is.Equal(x.Head, one.head) // in one commit or thirty
	is.Equal(x.Tree, one.tree)
	for i, l := range one.lines {
		is.Equal(x.Contents[i], l.Content)
		is.Equal(x.Leaves[i], l.Leaf)
	}
}

func TestExtendRefuses(t *testing.T) {
	t.Parallel()
	b := newLogbook(t, organization, 10)
	next := func(change func(*audit.Event)) []audit.Event {
		e, second := sampleEvent(organization, 10), sampleEvent(organization, 11)
		change(&e)
		return []audit.Event{e, second}
	}
	tests := []struct {
		name   string
		events []audit.Event
	}{
		{"none", nil},
		{"number too low", next(func(e *audit.Event) { e.Seq = 9 })},
		{"number too high", next(func(e *audit.Event) { e.Seq = 11 })},
		{"second does not follow", slices.Repeat(next(func(*audit.Event) {})[:1], 2)},
		{"earlier than the head", next(func(e *audit.Event) { e.Time = b.head.Time - 1 })},
		{"second is earlier", next(func(e *audit.Event) { e.Time += 3_600_000_000 })},
		{"of two organizations", next(func(e *audit.Event) { e.Organization = "org-2" })},
		{"not encodable", next(func(e *audit.Event) { e.Salt = nil })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x, err := audit.Extend(b.head, b.tree, tt.events, b.signer)
			if !errors.Is(err, audit.ErrInvalid) || x.Head.Signed != nil {
				t.Fatalf("got %v", err)
			}
		})
	}
	h := b.head
	h.Size++
	_, err := audit.Extend(h, b.tree, next(func(*audit.Event) {}), b.signer)
	is.New(t).True(errors.Is(err, audit.ErrInvalid))
	h = b.head
	h.Epoch = 0
	_, err = audit.Extend(h, b.tree, next(func(*audit.Event) {}), b.signer)
	is.New(t).True(errors.Is(err, audit.ErrInvalid))
}
