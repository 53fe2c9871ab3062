package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// A row is a record as a database has it.
type row struct {
	id       string
	revision int64
	state    string
}

func (r row) hash(salt []byte) []byte { return hashState(salt, []byte(r.state)) }

// replayed replays the events of the sample log: its grants are created by one event and changed by the next.
func replayed(t *testing.T, n int64) (*audit.Replay, []row) {
	t.Helper()
	r := audit.NewReplay()
	var rows []row
	for seq := range n {
		e := sampleEvent(organization, seq)
		if err := r.Add(e); err != nil {
			t.Fatal(err)
		}
		switch seq % 4 {
		case 0:
			rows = append(rows, row{fmt.Sprintf("grant-%d", seq/4), 1, "pending"})
		case 1:
			rows[len(rows)-1] = row{fmt.Sprintf("grant-%d", seq/4), 2, "approved"}
		}
	}
	return r, rows
}

func TestReplaySound(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	r, rows := replayed(t, 801)
	for _, row := range rows {
		is.Equal(r.Check(audit.KindGrant, row.id, row.revision, row.hash), nil)
	}
	is.Equal(len(slices.Collect(r.Unseen())), 0)
	listed, unlisted := r.Discrepancies()
	is.Equal(len(listed), 0)
	is.Equal(unlisted, int64(0))
}

func TestReplayFindsEveryOldRow(t *testing.T) {
	t.Parallel()
	r, rows := replayed(t, 800)
	for i, row := range rows {
		old := row
		old.revision, old.state = 1, "pending"
		want := audit.Discrepancy{Seq: int64(4*i + 1), Record: audit.Ref{Kind: "grant", ID: row.id}, Revision: 1, Problem: "record is older than the log says"}
		if d := r.Check(audit.KindGrant, old.id, old.revision, old.hash); d == nil || *d != want {
			t.Fatalf("row %d put back: %+v", i, d)
		}
		old.revision = 2 // the old state under the new revision
		if d := r.Check(audit.KindGrant, old.id, old.revision, old.hash); d == nil || d.Problem != "record's state is not what the log says" {
			t.Fatalf("row %d put back under the new revision: %+v", i, d)
		}
	}
}

// Passes that each follow a part of the records find together what one finds, and
// hold no more than their part, even when they take to it on the way.
func TestReplayInParts(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	whole, rows := replayed(t, 400)
	rows[7].revision, rows[8].state = 1, "denied"
	want := make(map[string]string)
	for _, row := range rows[1:] { // the first one is missing
		if d := whole.Check(audit.KindGrant, row.id, row.revision, row.hash); d != nil {
			want[row.id] = d.Problem
		}
	}
	for d := range whole.Unseen() {
		want[d.Record.ID] = d.Problem
	}
	is.Equal(len(want), 3)
	got := make(map[string]string)
	for half := range 2 {
		holds := func(ref audit.Ref) bool { return len(ref.ID) > 0 && int(ref.ID[len(ref.ID)-1])%2 == half }
		r := audit.NewReplay()
		for seq := range int64(400) {
			if seq == 100 {
				r.Only(holds)
			}
			is.NoErr(r.Add(sampleEvent(organization, seq)))
		}
		is.True(r.Held() < whole.Held()*3/4)
		for _, row := range rows[1:] {
			if !holds(audit.Ref{Kind: audit.KindGrant, ID: row.id}) {
				continue
			}
			if d := r.Check(audit.KindGrant, row.id, row.revision, row.hash); d != nil {
				got[row.id] = d.Problem
			}
		}
		for d := range r.Unseen() {
			got[d.Record.ID] = d.Problem
		}
	}
	is.Equal(got, want)
}

func TestReplayFindsOtherRows(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	r, rows := replayed(t, 40)
	e := sampleEvent(organization, 40)
	e.Changes = []audit.Change{{Kind: "grant", ID: "grant-2", Revision: 3, Removed: true}}
	is.NoErr(r.Add(e))

	d := r.Check("grant", "forged", 1, rows[0].hash)
	is.Equal(*d, audit.Discrepancy{Seq: -1, Record: audit.Ref{Kind: "grant", ID: "forged"}, Revision: 1, Problem: "log knows nothing of it"})
	is.Equal(r.Check("agent", rows[0].id, 2, rows[0].hash).Problem, "log knows nothing of it") // another kind
	is.Equal(r.Check("grant", "grant-0", 3, rows[0].hash).Problem, "record is newer than the log says")
	is.Equal(r.Check("grant", "grant-2", 2, rows[2].hash).Problem, "log says that it was removed")
	var missing []string
	for d := range r.Unseen() {
		missing = append(missing, d.Record.ID)
		if len(missing) == 3 {
			break
		}
	}
	is.Equal(missing, []string{"grant-1", "grant-3", "grant-4"})
}

func TestReplayContinuity(t *testing.T) {
	t.Parallel()
	change := func(revision int64, removed bool) func(*audit.Event) {
		return func(e *audit.Event) {
			e.Changes = []audit.Change{{Kind: "tool", ID: "t", Revision: revision, Removed: removed, State: bytes.Repeat([]byte{1}, 32)}}
			if removed {
				e.Changes[0].State = nil
			}
		}
	}
	status := func(from, to string, outcome audit.Outcome) func(*audit.Event) {
		return func(e *audit.Event) {
			e.Target, e.From, e.To, e.Outcome = audit.Ref{Kind: "agent", ID: "a"}, from, to, outcome
		}
	}
	gap := func(e *audit.Event) { e.Seq += 100 }
	both := func(fns ...func(*audit.Event)) func(*audit.Event) {
		return func(e *audit.Event) {
			for _, fn := range fns {
				fn(e)
			}
		}
	}
	tests := []struct {
		name   string
		events []func(*audit.Event)
		want   []string
	}{
		{"in order", []func(*audit.Event){change(1, false), change(2, false), change(3, true), change(1, false), change(2, true), change(3, false)}, nil},
		{"begins late", []func(*audit.Event){change(2, false)}, []string{"first revision is not 1"}},
		{"skips one", []func(*audit.Event){change(1, false), change(3, false)}, []string{"revision does not follow the one before"}},
		{"repeats one", []func(*audit.Event){change(1, false), change(1, false)}, []string{"revision does not follow the one before"}},
		{"goes back", []func(*audit.Event){change(1, false), change(2, false), change(1, false)}, []string{"revision does not follow the one before"}},
		{"after removal", []func(*audit.Event){change(1, false), change(2, true), change(7, false)}, []string{"revision does not follow the one before"}},
		{"removed twice", []func(*audit.Event){change(1, false), change(2, true), change(3, true)}, []string{"record was removed twice"}},
		{"begins late after a gap", []func(*audit.Event){both(gap, change(5, false)), change(6, false)}, nil},
		{"goes on after a gap", []func(*audit.Event){change(1, false), both(gap, change(5, false))}, nil},
		{"goes back after a gap", []func(*audit.Event){change(2, false), both(gap, change(2, false))}, []string{"first revision is not 1", "revision does not rise"}},
		{"status", []func(*audit.Event){status("", "active", "ok"), status("active", "suspended", "ok"), status("suspended", "active", "ok")}, nil},
		{"status jumps", []func(*audit.Event){status("", "active", "ok"), status("suspended", "active", "ok")}, []string{"status before is not the status that the log knows"}},
		{"status refused", []func(*audit.Event){status("", "active", "ok"), status("active", "suspended", "refused"), status("active", "", "ok")}, nil},
		{"status after a gap", []func(*audit.Event){status("", "active", "ok"), both(gap, status("suspended", "active", "ok"))}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			r := audit.NewReplay()
			for i, fn := range tt.events {
				e := audit.Event{Seq: int64(i), Salt: make([]byte, 16), Outcome: audit.OutcomeOK}
				if i > 0 && tt.name == "begins late after a gap" {
					e.Seq += 100
				}
				fn(&e)
				is.NoErr(r.Add(e))
			}
			var got []string
			listed, _ := r.Discrepancies()
			for _, d := range listed {
				got = append(got, d.Problem)
			}
			is.Equal(got, tt.want)
		})
	}
}

func TestReplayOrderAndGap(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	r := audit.NewReplay()
	is.NoErr(r.Add(sampleEvent(organization, 10)))
	is.True(errors.Is(r.Add(sampleEvent(organization, 10)), audit.ErrInvalid))
	is.True(errors.Is(r.Add(sampleEvent(organization, 3)), audit.ErrInvalid))
	is.Equal(r.Check("grant", "grant-0", 1, nil).Problem, "log knows nothing of it, as far as content was kept")

	r = audit.NewReplay()
	for i := range int64(150) {
		e := sampleEvent(organization, i)
		e.Changes = []audit.Change{{Kind: "tool", ID: fmt.Sprint(i), Revision: 2, Removed: true}}
		is.NoErr(r.Add(e))
	}
	listed, unlisted := r.Discrepancies()
	is.Equal(len(listed), 100)
	is.Equal(unlisted, int64(50))
}
