package agentkey

import (
	"context"
	"errors"
	"time"
)

// AnchorState is what one of the Config.Anchors has.
type AnchorState struct {
	Name       string
	Logs       int64     // logs of the installation
	Kept       int64     // of these it has a head
	Events     int64     // committed and covered by no head, of all logs together
	Since      time.Time // time of the first of these; zero when there are none
	RolledBack []string  // organizations whose log does not continue what it has
	Err        error     // why a log could not be compared; nil when all were
}

// Anchored asks every anchor what it has of every log, and changes nothing. It may
// take long where anchors are slow; the error is that of storage.
func (m *Manager) Anchored(ctx context.Context) ([]AnchorState, error) {
	if err := m.enter(); err != nil {
		return nil, err
	}
	defer m.leave()
	out := make([]AnchorState, 0, len(m.anchors.all))
	for _, a := range m.anchors.all {
		s := AnchorState{Name: a.Name()}
		err := m.eachOrganization(ctx, func(id string) error { return a.add(ctx, &s, id) })
		if err != nil {
			return out, err
		}
		out = append(out, s)
	}
	return out, nil
}

// add adds one log to what is known of the anchor.
func (a *anchored) add(ctx context.Context, s *AnchorState, organization string) error {
	s.Logs++
	h, err := a.m.anchorHead(ctx, organization, nil)
	if err != nil {
		s.Err = errors.Join(s.Err, err)
		return ctx.Err()
	}
	k, missing, err := a.look(ctx, organization)
	switch {
	case err != nil:
		s.Err = err
		return ctx.Err()
	case errors.Is(k.behind, ErrRolledBack):
		s.RolledBack = append(s.RolledBack, organization)
		return nil
	case !missing:
		s.Kept++
	}
	if k.Size >= h.Size {
		return nil
	}
	s.Events += h.Size - k.Size
	at, err := a.m.eventTime(ctx, organization, k.Size)
	if since := time.UnixMicro(at); err == nil && at > 0 && (s.Since.IsZero() || since.Before(s.Since)) {
		s.Since = since
	}
	return err
}
