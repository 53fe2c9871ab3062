package agentkey

import (
	"context"
	"encoding/json"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// Lag says how far an anchor or a sink is behind the logs, of all organizations
// together. It is for watching an installation: what it says is not proven, and of what
// an anchor has it says only what this process saw.
type Lag struct {
	Name     string
	Logs     int64     // logs that it does not have to their end
	Events   int64     // committed events that it does not have
	Since    time.Time // time of the first of these, as far as it is known; zero: there are none
	At       time.Time // when it last took something; zero: never
	Failures int       // in a row, of this process
}

// Lags is the Lag of each of the Config.Anchors and Config.Sinks, in their order.
type Lags struct {
	Anchors []Lag
	Sinks   []Lag
}

// Lags says how far anchors and sinks are behind. It asks none of them, and reads
// the head of every log once: don't call it for each request.
//
// The errors: ErrUnavailable.
func (m *Manager) Lags(ctx context.Context) (Lags, error) {
	if err := m.enter(); err != nil {
		return Lags{}, err
	}
	defer m.leave()
	var out Lags
	for _, a := range m.anchors.all {
		a.mu.Lock()
		l := Lag{Name: a.Name(), Failures: a.fails}
		l.took(a.at)
		a.mu.Unlock()
		out.Anchors = append(out.Anchors, l)
	}
	for _, s := range m.shippers {
		s.mu.Lock()
		out.Sinks = append(out.Sinks, Lag{Name: s.Name, Failures: s.failures})
		s.mu.Unlock()
	}
	if len(out.Anchors)+len(out.Sinks) == 0 {
		return out, nil
	}
	err := m.eachOrganization(ctx, func(id string) error { return m.addLags(ctx, id, &out) })
	return out, err
}

// addLags adds one log.
func (m *Manager) addLags(ctx context.Context, organization string, out *Lags) error {
	kept := make([]int64, len(out.Anchors)) // before the head: what is kept after that is not ahead of it
	for i, a := range m.anchors.all {
		a.mu.Lock()
		if k := a.kept[organization]; k != nil {
			kept[i] = k.Size
		}
		a.mu.Unlock()
	}
	ctx, cancel := reading(ctx)
	defer cancel()
	var anchors, sinks []Lag
	err := m.store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) error {
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		anchors, sinks = make([]Lag, len(out.Anchors)), make([]Lag, len(out.Sinks))
		for i := range anchors {
			if err := anchors[i].behind(ctx, tx, kept[i], head.Size); err != nil {
				return err
			}
		}
		for i, s := range m.shippers {
			r, ok, err := tx.Record(ctx, kindCursor, s.Name)
			if err != nil {
				return err
			}
			var c cursorPayload
			if ok && json.Unmarshal(r.Payload, &c) != nil {
				c = cursorPayload{} // one that is damaged counts for nothing when it is used, too
			}
			sinks[i].took(c.At)
			if err := sinks[i].behind(ctx, tx, c.Next, head.Size); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return operationError(err)
	}
	for i := range anchors {
		out.Anchors[i].add(anchors[i])
	}
	for i := range sinks {
		out.Sinks[i].add(sinks[i])
	}
	return nil
}

func (l *Lag) took(at int64) {
	if at > 0 {
		l.At = time.UnixMicro(at)
	}
}

// behind sets l to what is there from a number on.
func (l *Lag) behind(ctx context.Context, tx storage.ReadTx, from, size int64) error {
	if from >= size {
		return nil
	}
	l.Logs, l.Events = 1, size-from
	lines, err := tx.Lines(ctx, from, 1)
	if err != nil || len(lines) == 0 || len(lines[0].Content) == 0 {
		return err
	}
	if e, err := audit.Parse(lines[0].Content); err == nil {
		l.Since = time.UnixMicro(e.Time)
	}
	return nil
}

func (l *Lag) add(one Lag) {
	l.Logs += one.Logs
	l.Events += one.Events
	if !one.Since.IsZero() && (l.Since.IsZero() || one.Since.Before(l.Since)) {
		l.Since = one.Since
	}
	if one.At.After(l.At) {
		l.At = one.At
	}
}
