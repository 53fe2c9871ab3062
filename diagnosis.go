package agentkey

import (
	"context"
	"errors"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// DiagnoseInput says how far Diagnose goes.
type DiagnoseInput struct {
	// Organization is the one to look at. Empty: every one, and the reserved one.
	Organization string `validate:"max=128,id" json:"organization"`
	// Sample is how many sealed values of each organization are opened, at most
	// 10000. Zero: 100. All others are looked at without opening them.
	Sample int `validate:"min=0,max=10000" json:"sample"`
	// All opens every value in place of a sample.
	All bool `json:"all"`
	// Progress is told now and then what was found so far, from the goroutine that
	// called Diagnose. Nil: nobody is.
	Progress func(Diagnosis) `json:"-"`
}

// Diagnosis is what Diagnose found. It holds ids and counts, never a value.
type Diagnosis struct {
	Provider      string // the id of the provider's current key
	Organizations int64
	Destroyed     int64 // organizations all of whose seal keys are destroyed
	DataKeys      int64 // that are not destroyed
	Rewrap        int64 // of them, those that another key than the provider's current one wraps
	Rows          int64 // whose seals were checked
	Values        int64 // sealed values
	Older         int64 // of them, those under a data key that seals no more
	Opened        int64 // of them, those that were opened, and zeroed
	Found         int64 // findings, also those beyond the first thousand
	Findings      []Finding
}

// OK says whether nothing was found.
func (d Diagnosis) OK() bool { return d.Found == 0 }

// Finding is something that is not as it has to be, in an organization or, when
// Organization is empty, in the installation. Kind is that of a record or
// KindKeyProvider.
type Finding struct {
	Organization string
	Kind, ID     string
	Problem      string
}

// KindKeyProvider is the kind of a Finding about the key provider.
const KindKeyProvider = "key_provider"

const defaultSample = 100

// Diagnose examines keys and seals, for an Operator: that the key provider answers
// and binds what it wraps to its place; that every data key unwraps to the key
// that its id names; that every row seal holds; that every sealed value is under a
// data key which is there and not destroyed, and that those of a sample open in
// their place and nowhere else; that the counts of seals are possible, and within
// Config.SealsPerKey.
//
// It runs beside everything else, holds a page of rows and the sample in memory,
// and changes nothing but the log: that an organization is examined is recorded
// before anything of it is opened, and that something was found after it.
//
// What is wrong is in the Diagnosis, and is no error. The errors say why it did not
// come to its end: ErrKeys when the provider stopped answering, ErrStorage, and
// ErrNoOrganization.
func (m *Manager) Diagnose(ctx context.Context, a Actor, in DiagnoseInput) (Diagnosis, error) {
	if err := m.authorize(ctx, a, OpDiagnose); err != nil {
		return Diagnosis{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return Diagnosis{}, err
	}
	if err := m.enter(); err != nil {
		return Diagnosis{}, err
	}
	defer m.leave()
	in.Sample = or(in.Sample, defaultSample)
	x := &diagnosis{m: m, who: a.who(), in: in}
	if !x.provider(ctx) {
		return x.out, ctx.Err()
	}
	if in.Organization != "" {
		_, head, err := m.source(ctx, in.Organization)
		if err == nil && head.Size == 0 {
			err = ErrNoOrganization
		}
		if err != nil {
			return x.out, err
		}
		return x.out, x.organization(ctx, in.Organization)
	}
	err := m.eachOrganization(ctx, func(id string) error { return x.organization(ctx, id) })
	return x.out, err
}

// diagnosis is one run of Diagnose.
type diagnosis struct {
	m   *Manager
	who who
	in  DiagnoseInput
	out Diagnosis
}

func (x *diagnosis) find(organization, kind, id, problem string) {
	x.out.Found++
	if len(x.out.Findings) < maxDiscrepancies {
		x.out.Findings = append(x.out.Findings, Finding{Organization: organization, Kind: kind, ID: id, Problem: problem})
	}
}

func (x *diagnosis) progress() {
	if x.in.Progress != nil {
		x.in.Progress(x.out)
	}
}

// provider has a key wrapped that is used for nothing, and says whether going on
// makes sense.
func (x *diagnosis) provider(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, x.m.config.KeyTimeout)
	defer cancel()
	found := func(problem string, err error) bool {
		x.find("", KindKeyProvider, x.out.Provider, problem+": "+err.Error())
		return false
	}
	id, err := x.m.config.Keys.CurrentKey(ctx)
	if err != nil {
		return found("does not name its key", err)
	}
	x.out.Provider = id
	key, err := vault.NewDataKey(vault.PurposeSeal)
	if err != nil {
		return found("can't be tried", err)
	}
	defer key.Destroy()
	here := vault.Context{Installation: x.m.installation, Organization: storage.System, Purpose: string(key.Purpose()), Key: key.ID()}
	wrapped, err := vault.Wrap(ctx, x.m.config.Keys, key, here)
	if err != nil {
		return found("does not wrap and unwrap", err)
	}
	there := here
	there.Organization = newID()
	moved, err := vault.Unwrap(ctx, x.m.config.Keys, wrapped, key.ID(), key.Purpose(), there)
	switch {
	case err == nil:
		moved.Destroy()
		x.find("", KindKeyProvider, id, "unwraps for one organization what it wrapped for another")
	case !errors.Is(err, vault.ErrIntegrity):
		return found("does not refuse a key of another place as it should", err)
	}
	return true
}

// organization examines one.
func (x *diagnosis) organization(ctx context.Context, id string) error {
	x.out.Organizations++
	before := x.out.Found
	o := &examined{
		diagnosis: x, id: id, seen: make(map[string]bool), keys: make(map[string]*vault.DataKey), sealed: make(map[string]int64),
	}
	defer func() { destroyKeys(o.keys) }()
	if err := o.examine(ctx); err != nil {
		return err
	}
	x.progress()
	found := x.out.Found - before
	if found == 0 {
		return nil
	}
	first := Finding{Kind: audit.KindOrganization, ID: id} // where so many were found before that this one is not listed
	if before < int64(len(x.out.Findings)) {
		first = x.out.Findings[before]
	}
	return x.record(ctx, id, func(e *entry) {
		e.Action, e.Outcome, e.Reason, e.Count = audit.ActionCryptoExaminationFailed, audit.OutcomeFailed, "findings", found
		e.Target = audit.Ref{Kind: first.Kind, ID: first.ID}
	})
}

// record writes an event into the organization's log or, where that can't be
// written because it is what is damaged, into the reserved one.
func (x *diagnosis) record(ctx context.Context, organization string, describe func(e *entry)) error {
	write := func(log string) error {
		return x.m.commit(ctx, &operation{organization: log, needs: needs{logOnly: true}, decide: func(u *unit) error {
			e := u.event(x.who, audit.ActionCryptoExamined)
			describe(e)
			if log != organization {
				e.Details = map[string]string{"organization": organization}
			}
			return nil
		}})
	}
	err := write(organization)
	if organization != storage.System && (errors.Is(err, ErrIntegrity) || errors.Is(err, ErrKeys) || errors.Is(err, ErrNotFound)) {
		return write(storage.System)
	}
	return err
}
