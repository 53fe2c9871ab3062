package agentkey

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// kindRemoval is the kind of the records that name the deleted tools whose versions
// and suggestions are still there, each under the tool's id. As long as there is
// one, there is besides a record under an id that is always the same: so the
// organizations that have work left are found by one look-up, however many
// organizations there are.
const (
	kindRemoval = "tool_removal"
	removalsID  = "waiting" // behind every tool's id
)

var removalsRef = recordRef{kindRemoval, removalsID}

// removeLater notes that what went with a tool is to be removed. A tool may have
// thousands of versions and suggestions, which no single transaction should have
// to remove: nobody finds them from now on, and Run removes them.
func (u *unit) removeLater(e *entry, tool string) error {
	if guide, ok := u.records[guideRef(tool)]; ok {
		u.deleteRecord(e, guide)
	}
	if _, waiting := u.records[removalsRef]; !waiting {
		if err := u.putRecord(e, storage.Record{Kind: kindRemoval, ID: removalsID, Payload: []byte("{}"), Revision: 1}); err != nil {
			return err
		}
	}
	return u.putRecord(e, storage.Record{Kind: kindRemoval, ID: tool, Payload: []byte("{}"), Revision: 1})
}

// removals is a scan of the deleted tools, in the order in which they were added.
func removals(limit int) storage.Scan {
	return storage.Scan{Kind: kindRemoval, To: removalsID, Limit: limit}
}

// sweepRemovals removes what went with deleted tools. Organizations in which it
// can't, as for a damaged record, keep nobody else waiting.
func (m *Manager) sweepRemovals(ctx context.Context) error {
	for {
		organizations, err := m.store.FindRecord(ctx, kindRemoval, removalsID)
		if err != nil || len(organizations) == 0 {
			return storageError(err)
		}
		var failed error
		for _, id := range organizations {
			failed = errors.Join(failed, m.removeAll(ctx, id))
		}
		switch {
		case failed == nil:
		case len(organizations) < 2 || ctx.Err() != nil || errors.Is(failed, ErrStorage):
			return failed
		default:
			err := m.eachOrganization(ctx, func(id string) error {
				failed = errors.Join(failed, m.removeAll(ctx, id))
				return ctx.Err()
			})
			return errors.Join(failed, err)
		}
	}
}

// removeAll removes what went with the deleted tools of one organization, one
// transaction after another.
func (m *Manager) removeAll(ctx context.Context, organization string) error {
	for {
		var waiting []storage.Record
		err := m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) (err error) {
			if err := u.load(ctx, tx, &needs{records: []recordRef{removalsRef}, ended: true}); err != nil {
				return err
			}
			waiting, err = u.scan(ctx, tx, removals(1))
			if _, any := u.records[removalsRef]; any && len(waiting) == 0 && err == nil {
				return &integrityError{kind: kindRemoval, id: removalsID} // somebody took the others away
			}
			return err
		})
		if err != nil || len(waiting) == 0 {
			return err
		}
		if err := m.removeSome(ctx, organization, waiting[0].ID); err != nil {
			return err
		}
	}
}

// removeSome removes at most maxChanges records of what went with a tool, and
// with the last of them the note that there are any.
func (m *Manager) removeSome(ctx context.Context, organization, tool string) error {
	kinds := []string{kindInstructionSupporter, kindInstructionSuggestion, kindInstructionVersion}
	n := needs{ended: true, records: []recordRef{removalsRef, {kindRemoval, tool}}, scans: []storage.Scan{removals(2)}}
	for _, kind := range kinds {
		n.scans = append(n.scans, ofTool(kind, tool, maxChanges))
	}
	return m.commit(ctx, &operation{organization: organization, needs: n, decide: func(u *unit) error {
		note, waits := u.records[recordRef{kindRemoval, tool}]
		if !waits {
			return nil // somebody else was faster
		}
		var all []storage.Record
		waiting := 0
		for ref, r := range u.records {
			switch {
			case slices.Contains(kinds, ref.kind):
				all = append(all, r)
			case ref.kind == kindRemoval && ref != removalsRef:
				waiting++
			}
		}
		slices.SortFunc(all, func(a, b storage.Record) int {
			return strings.Compare(a.Kind+"/"+a.ID, b.Kind+"/"+b.ID)
		})
		e := u.event(system, audit.ActionToolInstructionsRemoved)
		e.Tool, e.Target = tool, audit.Ref{Kind: audit.KindTool, ID: tool}
		for _, r := range all[:min(len(all), maxChanges)] {
			u.deleteRecord(e, r)
		}
		if len(all) >= maxChanges {
			return nil // there may be more
		}
		u.deleteRecord(e, note)
		if last, ok := u.records[removalsRef]; ok && waiting == 1 {
			u.deleteRecord(e, last)
		}
		return nil
	}})
}
