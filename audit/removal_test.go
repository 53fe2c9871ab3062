package audit_test

import (
	"errors"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// removing is an event that says what was removed.
func removing(seq int64, r audit.Removal) audit.Event {
	e := sampleEvent(organization, seq)
	e.Action, e.Outcome, e.Reason, e.Details = audit.ActionLogContentRemoved, audit.OutcomeOK, "", r.Details()
	return e
}

func TestRemovals(t *testing.T) {
	t.Parallel()
	said := audit.Removal{From: 3, Below: 9, Removed: 4, Personal: 1, Bound: 9, Total: 4, ContentDays: 30, PersonalDays: 7}
	e := removing(20, said)
	got, ok := audit.ParseRemoval(&e)
	is.New(t).True(ok)
	is.New(t).Equal(got, said)
	for name, test := range map[string]struct {
		missing []int64
		events  []audit.Event
		want    []audit.Finding
	}{
		"nothing":              {nil, nil, nil},
		"as was said":          {[]int64{3, 4, 6, 8}, []audit.Event{e}, nil},
		"less than was said":   {[]int64{3, 4, 6}, []audit.Event{e}, nil},
		"nobody said so":       {[]int64{3, 5, 6}, nil, []audit.Finding{{3, 3, "content is missing"}, {5, 6, "content is missing"}}},
		"above what was said":  {[]int64{3, 8, 9}, []audit.Event{e}, []audit.Finding{{9, 9, "content is missing"}}},
		"one more":             {[]int64{2, 3, 4, 6, 8}, []audit.Event{e}, []audit.Finding{{0, 8, "more content is missing than was removed"}}},
		"another action":       {[]int64{3}, []audit.Event{sampleEvent(organization, 20)}, []audit.Finding{{3, 3, "content is missing"}}},
		"of what comes after":  {[]int64{3}, []audit.Event{removing(2, said)}, []audit.Finding{{3, 3, "content is missing"}}},
		"the latest one holds": {[]int64{3, 4, 6, 8, 10}, []audit.Event{e, removing(30, audit.Removal{Bound: 11, Total: 5})}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r audit.Removals
			for _, seq := range test.missing {
				r.Missing(seq)
			}
			for i := range test.events {
				r.Event(&test.events[i])
			}
			is.New(t).Equal(r.Findings(), test.want)
		})
	}
}

// However much is missing, what is remembered does not grow.
func TestRemovalsAreBounded(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var r audit.Removals
	for seq := range int64(10_000) {
		r.Missing(2 * seq)
	}
	is.Equal(len(r.Findings()), 100)
	is.Equal(r.Findings()[99].To, int64(19_998))
}

// A removal that is no removal says nothing.
func TestMalformedRemovals(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	for _, bad := range []string{"", "x", "-1", "1.5", "99999999999999999999"} {
		e := removing(20, audit.Removal{Bound: 9})
		e.Details["total"] = bad
		_, ok := audit.ParseRemoval(&e)
		is.True(!ok)
	}
	e := removing(20, audit.Removal{Bound: 9})
	e.Outcome = audit.OutcomeFailed
	_, ok := audit.ParseRemoval(&e)
	is.True(!ok)
}

// A whole log, of which retention removed some by its own word: verified without
// anybody's claim, and with one line too many missing not any more.
func TestVerifyRecordedRemovals(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	b := newLogbook(t, organization, 40)
	for _, seq := range []int{2, 3, 5} {
		b.lines[seq].Content, b.lines[seq].Personal = nil, nil
	}
	log := b.log(t)
	log.Recorded = true
	r, err := audit.Verify(t.Context(), log)
	is.NoErr(err)
	is.True(!r.OK()) // nobody said so
	is.Equal(r.Findings[0], audit.Finding{From: 2, To: 3, Problem: "content is missing"})
	is.Equal(r.HashVerified, int64(3))
}

func TestShippedLines(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	b := newLogbook(t, organization, 4)
	origin := audit.Origin(installation, organization, 3)
	b.lines[2].Content, b.lines[2].Personal = nil, nil
	b.lines[3].Content = []byte("damaged\n<&>")
	for _, l := range b.lines {
		text, err := l.Shipped(origin)
		is.NoErr(err)
		from, again, err := audit.ParseShipped(text)
		is.NoErr(err)
		is.Equal(from, origin)
		is.Equal(string(again.Content), string(l.Content))
		is.Equal(string(again.Personal), string(l.Personal))
		is.Equal([]any{again.Seq, again.Leaf}, []any{l.Seq, l.Leaf})
		for cut := range len(text) {
			if _, _, err := audit.ParseShipped(text[:cut]); !errors.Is(err, audit.ErrFormat) {
				t.Fatalf("half a line of %d bytes: %v", cut, err)
			}
		}
	}
	_, err := b.lines[0].Shipped("nowhere")
	is.True(errors.Is(err, audit.ErrInvalid))
	ocsf, err := b.lines[0].OCSF(origin)
	is.NoErr(err)
	is.True(len(ocsf) > 0 && ocsf[len(ocsf)-1] == '}')
	_, err = b.lines[3].OCSF(origin)
	is.True(errors.Is(err, audit.ErrFormat))
}

func FuzzParseShipped(f *testing.F) {
	content, err := sampleEvent(organization, 1).Encode()
	if err != nil {
		f.Fatal(err)
	}
	text, err := audit.Line{Seq: 1, Content: content, Leaf: audit.LeafHash(content)}.Shipped(audit.Origin(installation, organization, 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		origin, l, err := audit.ParseShipped(text)
		if err != nil {
			if !errors.Is(err, audit.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		again, err := l.Shipped(origin)
		if err != nil || string(again) != string(text) {
			t.Fatalf("%v\n%s\n%s", err, text, again)
		}
	})
}
