package agentkey

import (
	"context"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// InstructionSource says what made a version of a tool's instructions.
type InstructionSource string

// The sources of a version.
const (
	SourceToolCreated InstructionSource = "tool_create"       // the tool was added with it, or with none
	SourceManual      InstructionSource = "manual"            // an administrator wrote it
	SourceSuggestion  InstructionSource = "suggestion_accept" // an administrator accepted what agents learned
	SourceRestored    InstructionSource = "restore"           // an administrator went back to an older one
)

// InstructionVersion is one version of the instructions that agents get with a
// tool's credential. Versions never change, and each follows the one before: a
// new one is made whenever the text is another than before.
type InstructionVersion struct {
	ID             string
	Organization   string
	Tool           string
	Number         int64 // 1 for the one that the tool was added with, one more for each
	Instructions   string
	Source         InstructionSource
	Suggestion     string // that was accepted with it
	RestoredFrom   string // the version whose text it took
	CreatedBy      string
	CreatedByKind  string
	CreatedByLabel string
	CreatedAt      int64
	Current        bool // agents get this one
}

// InstructionVersionsInput asks for a page of a tool's versions, newest first.
type InstructionVersionsInput struct {
	Tool  string
	After string // the id of the last version of the page before
	Limit int    // 1 to 500; 0: 100
}

// InstructionVersionsPage is a page of versions.
type InstructionVersionsPage struct {
	Versions []InstructionVersion
	Next     string // the After of the next page; empty: there are no more
}

// Kinds of records of a tool's instructions. The text that is vended stands in the
// tool itself, so that a vend reads nothing of this.
const (
	kindGuide              = "tool_guide" // id: the tool's; which version is current
	kindInstructionVersion = audit.KindInstructionVersion
)

// indexTool is the index of all that goes with a tool: the tool and a slash, and
// what the records of the tool are in the order of.
const indexTool = "tool"

type guidePayload struct {
	Version string `json:"version"`
	Number  int64  `json:"number"`
}

type versionPayload struct {
	Tool           string            `json:"tool"`
	Number         int64             `json:"number"`
	Instructions   string            `json:"instructions"`
	Source         InstructionSource `json:"source"`
	Suggestion     string            `json:"suggestion,omitempty"`
	RestoredFrom   string            `json:"restored_from,omitempty"`
	CreatedBy      string            `json:"created_by"`
	CreatedByKind  string            `json:"created_by_kind"`
	CreatedByLabel string            `json:"created_by_label"`
	CreatedAt      int64             `json:"created_at"`
}

func guideRef(tool string) recordRef { return recordRef{kindGuide, tool} }

// numbered is a version's place among those of its tool, as an index value.
func numbered(tool string, number int64) string { return fmt.Sprintf("%s/%020d", tool, number) }

// ofTool is a scan of what goes with a tool.
func ofTool(kind, tool string, limit int) storage.Scan {
	return storage.Scan{Kind: kind, Index: indexTool, From: tool + "/", To: tool + "0", Limit: limit}
}

// guide gives the record of a tool's current version. Every tool has one: a tool
// without was robbed of it.
func (u *unit) guide(tool string) (g guidePayload, revision int64, err error) {
	r, ok := u.records[guideRef(tool)]
	if !ok {
		return g, 0, &integrityError{kind: kindGuide, id: tool}
	}
	g, err = parsePayload[guidePayload](r)
	return g, r.Revision, err
}

// version gives a version of a tool that was read.
func (u *unit) version(tool, id string) (v versionPayload, err error) {
	r, ok := u.records[recordRef{kindInstructionVersion, id}]
	if !ok {
		return v, ErrNoVersion
	}
	if v, err = parsePayload[versionPayload](r); err == nil && v.Tool != tool {
		err = ErrNoVersion
	}
	return v, err
}

// beginGuide writes the first version of a new tool's instructions.
func (u *unit) beginGuide(a Actor, tool storage.Tool) error {
	return u.putVersion(a, tool, revision{source: SourceToolCreated})
}

// revision is what a change of a tool makes of its instructions.
type revision struct {
	changed  bool // the text is another
	source   InstructionSource
	guide    guidePayload // that it replaces
	revision int64        // of that guide's record
	restored string       // the version whose text it took
	accepted *learned     // the suggestion that it takes up
}

// revise changes a tool's instructions as asked. What is asked for besides the
// text has to fit the current version.
func (u *unit) revise(tool *storage.Tool, in UpdateToolInput) (r revision, err error) {
	before := tool.Instructions
	r.source = SourceManual
	if in.RestoreVersion != "" {
		v, err := u.version(tool.ID, in.RestoreVersion)
		if err != nil {
			return r, err
		}
		tool.Instructions, r.source, r.restored = v.Instructions, SourceRestored, in.RestoreVersion
	}
	set(&tool.Instructions, in.Instructions)
	if r.changed = tool.Instructions != before; !r.changed && in.AcceptSuggestion == "" {
		return r, nil
	}
	if r.guide, r.revision, err = u.guide(tool.ID); err != nil || in.AcceptSuggestion == "" {
		return r, err
	}
	r.source = SourceSuggestion
	r.accepted, err = u.acceptable(tool.ID, in.AcceptSuggestion, r.guide)
	return r, err
}

// takesUp are the records that a change of a tool refers to.
func (in UpdateToolInput) takesUp() (refs []recordRef) {
	if in.AcceptSuggestion != "" {
		refs = append(refs, recordRef{kindInstructionSuggestion, in.AcceptSuggestion})
	}
	if in.RestoreVersion != "" {
		refs = append(refs, recordRef{kindInstructionVersion, in.RestoreVersion})
	}
	return refs
}

// putRevision writes the version that a change made, if it made one, and what
// follows from it.
func (u *unit) putRevision(a Actor, tool storage.Tool, r revision) error {
	version := r.guide.Version
	if r.changed {
		if err := u.putVersion(a, tool, r); err != nil {
			return err
		}
		g, _, err := u.guide(tool.ID)
		if err != nil {
			return err
		}
		version = g.Version
	}
	if r.accepted == nil {
		return nil
	}
	return u.accept(a, tool, r.accepted, version)
}

// putVersion writes the next version of a tool's instructions, which the tool has
// already, with the events of it.
func (u *unit) putVersion(a Actor, tool storage.Tool, r revision) error {
	id := newID()
	v := versionPayload{
		Tool: tool.ID, Number: r.guide.Number + 1, Instructions: tool.Instructions, Source: r.source, RestoredFrom: r.restored,
		CreatedBy: a.ID, CreatedByKind: a.Kind, CreatedByLabel: a.Label, CreatedAt: u.now,
	}
	if r.accepted != nil {
		v.Suggestion = r.accepted.id
	}
	e := u.versionEvent(a, audit.ActionToolInstructionsVersionCreated, tool, id)
	e.Details = map[string]string{"source": string(r.source)}
	err := u.putPayload(e, storage.Record{
		Kind: kindInstructionVersion, ID: id, Revision: 1,
		Index: []storage.IndexEntry{{Name: indexTool, Value: numbered(tool.ID, v.Number)}},
	}, v)
	if err != nil {
		return err
	}
	err = u.putPayload(e, storage.Record{Kind: kindGuide, ID: tool.ID, Revision: r.revision + 1}, guidePayload{Version: id, Number: v.Number})
	if err != nil || r.restored == "" {
		return err
	}
	u.versionEvent(a, audit.ActionToolInstructionsRestored, tool, id).Details = map[string]string{"restored_from": r.restored}
	return nil
}

func (u *unit) versionEvent(a Actor, action audit.Action, tool storage.Tool, id string) *entry {
	e := u.toolEvent(a, action, tool)
	e.Target = audit.Ref{Kind: audit.KindInstructionVersion, ID: id}
	return e
}

// currentVersion is the id of a tool's current version, empty if that is not known.
func (u *unit) currentVersion(tool string) string {
	g, _, err := u.guide(tool)
	if err != nil {
		return ""
	}
	return g.Version
}

func (v versionPayload) view(organization, id, current string) InstructionVersion {
	return InstructionVersion{
		ID: id, Organization: organization, Tool: v.Tool, Number: v.Number, Instructions: v.Instructions, Source: v.Source,
		Suggestion: v.Suggestion, RestoredFrom: v.RestoredFrom,
		CreatedBy: v.CreatedBy, CreatedByKind: v.CreatedByKind, CreatedByLabel: v.CreatedByLabel, CreatedAt: v.CreatedAt,
		Current: id == current,
	}
}

// InstructionVersions lists the versions of a tool's instructions, newest first.
//
// The errors: ErrForbidden, ErrNotFound, ErrInvalid, ErrLimited, ErrUnavailable.
func (m *Manager) InstructionVersions(ctx context.Context, a Actor, in InstructionVersionsInput) (InstructionVersionsPage, error) {
	if err := m.authorize(ctx, a, OpReadInstructions); err != nil {
		return InstructionVersionsPage{}, err
	}
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return InstructionVersionsPage{}, err
	}
	n := needs{tools: []string{in.Tool}, records: []recordRef{guideRef(in.Tool)}}
	if in.After != "" {
		n.records = append(n.records, recordRef{kindInstructionVersion, in.After})
	}
	var out InstructionVersionsPage
	err = m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		out = InstructionVersionsPage{Versions: []InstructionVersion{}}
		if err := u.load(ctx, tx, &n); err != nil {
			return err
		}
		if _, ok := u.tools[in.Tool]; !ok {
			return ErrNoTool
		}
		s := ofTool(kindInstructionVersion, in.Tool, limit)
		s.Descending = true
		if in.After != "" {
			v, err := u.version(in.Tool, in.After)
			if err != nil {
				return invalid("cursor", "is not a version of this tool")
			}
			s.AfterValue, s.AfterID = numbered(in.Tool, v.Number), in.After
		}
		found, err := u.scan(ctx, tx, s)
		if err != nil {
			return err
		}
		for _, r := range found {
			v, err := parsePayload[versionPayload](r)
			if err != nil {
				return err
			}
			out.Versions = append(out.Versions, v.view(u.organization, r.ID, u.currentVersion(in.Tool)))
		}
		if n := len(out.Versions); n == limit && out.Versions[n-1].Number > 1 {
			out.Next = out.Versions[n-1].ID
		}
		return nil
	})
	return out, err
}

// InstructionVersion reads one version of a tool's instructions, the current one
// for an empty id.
//
// The errors: ErrForbidden, ErrNotFound, ErrLimited, ErrUnavailable.
func (m *Manager) InstructionVersion(ctx context.Context, a Actor, tool, id string) (out InstructionVersion, err error) {
	if err := m.authorize(ctx, a, OpReadInstructions); err != nil {
		return InstructionVersion{}, err
	}
	err = m.readVersions(ctx, a, tool, []string{id}, func(_ context.Context, _ storage.ReadTx, u *unit) error {
		out, err = u.versionView(tool, id)
		return err
	})
	return out, err
}

// DiffInstructions compares two versions of a tool's instructions. An empty to is
// the current version, an empty from the version before to; before the first one
// there was no text.
//
// The errors: ErrForbidden, ErrNotFound, ErrLimited, ErrUnavailable.
func (m *Manager) DiffInstructions(ctx context.Context, a Actor, tool, from, to string) (out InstructionsDiff, err error) {
	if err := m.authorize(ctx, a, OpReadInstructions); err != nil {
		return InstructionsDiff{}, err
	}
	err = m.readVersions(ctx, a, tool, []string{from, to}, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		out = InstructionsDiff{}
		if out.To, err = u.versionView(tool, to); err != nil {
			return err
		}
		before := from
		if from == "" {
			s := ofTool(kindInstructionVersion, tool, 1)
			s.From, s.To = numbered(tool, out.To.Number-1), numbered(tool, out.To.Number)
			found, err := u.scan(ctx, tx, s)
			if err != nil || len(found) == 0 {
				return err
			}
			before = found[0].ID
		}
		out.From, err = u.versionView(tool, before)
		return err
	})
	if err == nil {
		out.compare()
	}
	return out, err
}

// readVersions gives fn a consistent read with a tool's current version and those
// that are named.
func (m *Manager) readVersions(ctx context.Context, a Actor, tool string, ids []string, fn func(ctx context.Context, tx storage.ReadTx, u *unit) error) error {
	n := needs{tools: []string{tool}, records: []recordRef{guideRef(tool)}}
	for _, id := range ids {
		if id != "" {
			n.records = append(n.records, recordRef{kindInstructionVersion, id})
		}
	}
	n.follow = func(u *unit) []recordRef {
		return []recordRef{{kindInstructionVersion, u.currentVersion(tool)}}
	}
	return m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &n); err != nil {
			return err
		}
		if _, ok := u.tools[tool]; !ok {
			return ErrNoTool
		}
		return fn(ctx, tx, u)
	})
}

// versionView is a version that was read, the current one for an empty id.
func (u *unit) versionView(tool, id string) (InstructionVersion, error) {
	current := u.currentVersion(tool)
	if id == "" {
		id = current
	}
	v, err := u.version(tool, id)
	if err != nil {
		return InstructionVersion{}, err
	}
	return v.view(u.organization, id, current), nil
}
