package agentkey

import (
	"context"
	"encoding/hex"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// LeakReport is a key or token that somebody found where it must not be.
type LeakReport struct {
	// Secret is what was found, as it was found. It is neither kept nor logged: only
	// its SHA-256 is looked up. It stays the caller's.
	Secret *Secret
	// Source says in a word where: one of LeakSources; anything else counts as
	// "other", since what a stranger says goes into no log.
	Source string
	// URL is the place, if there is one. Of it only the host is kept, in the part of
	// the event that can be erased: the rest of a URL may hold secrets of its own.
	URL string
}

// Leaked says what a reported secret turned out to be.
type Leaked string

// What a reported secret can be.
const (
	LeakedNothing Leaked = ""            // nothing that is known here
	LeakedKey     Leaked = "agent_key"   // an agent's key, in use or not any more
	LeakedToken   Leaked = "admin_token" // an administrator's token, in use or not any more
)

// LeakSources are the places that a report may name, as GitHub's secret scanning
// names them, in ascending order.
func LeakSources() []string {
	return []string{
		"commit", "commit_comment", "content", "discussion_body", "discussion_comment", "discussion_title", "gist_comment", "gist_content",
		"issue_body", "issue_comment", "issue_description", "issue_title", "log", "npm", "person", "pull_request_body", "pull_request_comment",
		"pull_request_description", "pull_request_title", "wiki_commit", "wiki_content",
	}
}

// ReportLeak takes a report from anybody. Who has an agent's key can stop that
// agent, and no more than that: the key is revoked, the agent is suspended and its
// grants are revoked; a token of an administrator is revoked. When it returns, no call
// with the secret that begins afterwards succeeds. People are told by a notification. A
// key or token that is of no use any more is noted, and nothing else happens: an old
// one that is found again stops nobody. Reactivating the agent brings back neither the
// key nor the grants.
//
// What it answers tells no more than presenting the secret would. One that is not
// known is counted as failed authentication of the address in rc, which the caller
// admits first, see AdmitAddress.
//
// The errors: ErrUnavailable.
func (m *Manager) ReportLeak(ctx context.Context, rc RequestContext, in LeakReport) (Leaked, error) {
	reporter := who{actor: audit.Actor{Kind: audit.ActorUnknown, Auth: "possession"}, context: rc}
	return m.reportLeak(ctx, leak{LeakReport: in, reporter: reporter, doer: system, by: grants.Decider{ID: "leak_report", Kind: audit.ActorSystem}})
}

// ReportOwnLeak takes the report of an administrator: of a key or token of the
// actor's own organization, and whatever it leads to is the actor's deed. Anything
// else is LeakedNothing. Apart from that it does what ReportLeak does.
//
// The errors: ErrForbidden, ErrUnavailable.
func (m *Manager) ReportOwnLeak(ctx context.Context, a Actor, in LeakReport) (Leaked, error) {
	if err := m.authorize(ctx, a, OpReportLeak); err != nil {
		return LeakedNothing, err
	}
	return m.reportLeak(ctx, leak{LeakReport: in, reporter: a.who(), doer: a.who(), by: a.decider(), actor: &a})
}

// leak is a report with who made it and who does what follows.
type leak struct {
	LeakReport
	reporter, doer who
	by             grants.Decider
	actor          *Actor // nil: anybody
}

func (m *Manager) reportLeak(ctx context.Context, l leak) (Leaked, error) {
	if err := m.enter(); err != nil {
		return LeakedNothing, err
	}
	defer m.leave()
	if digest := (Caller{secret: l.Secret}).digest(); digest != nil {
		k, ok, err := m.findKey(ctx, digest)
		if err != nil {
			return LeakedNothing, err
		}
		if ok && l.mayKnow(k.Organization) {
			return m.leakedKey(ctx, l, k, digest)
		}
	} else if l.Secret.Len() > 0 && l.Secret.Len() <= maxToken {
		id := hex.EncodeToString(digestOf(l.Secret))
		finding, cancel := reading(ctx)
		defer cancel()
		found, err := m.store.FindRecord(finding, kindToken, id)
		if err != nil {
			return LeakedNothing, storageError(err)
		}
		if len(found) == 1 && l.mayKnow(found[0]) {
			return m.leakedToken(ctx, l, found[0], id)
		}
	}
	if l.actor == nil {
		m.failures.add(l.reporter.context.Address, "unknown_leak", micros(m.config.Clock()))
	}
	return LeakedNothing, nil
}

func (l leak) mayKnow(organization string) bool {
	return l.actor == nil || l.actor.Organization == organization
}

// act runs decide under the organization's head, as the actor if there is one. A
// stranger's report waits its turn: a dead key must be no means to delay vends.
func (l leak) act(ctx context.Context, m *Manager, organization string, n needs, decide func(u *unit) error) error {
	if l.actor != nil {
		return m.act(ctx, *l.actor, OpReportLeak, n, decide)
	}
	return m.commit(ctx, &operation{organization: organization, needs: n, decide: decide})
}

// leakedKey stops the agent whose key was found. That key was found by its digest
// only routes: it is looked at again under the head.
func (m *Manager) leakedKey(ctx context.Context, l leak, found storage.Key, digest []byte) (leaked Leaked, err error) {
	n := needs{
		keys: []string{found.ID}, agents: []string{found.Agent}, named: true, credentials: true, approvals: true,
		grantsOf: []storage.GrantQuery{{Agent: found.Agent, Statuses: open}},
	}
	err = l.act(ctx, m, found.Organization, n, func(u *unit) error {
		leaked = LeakedNothing
		k, ok := u.keys[found.ID]
		agent, known := u.agents[found.Agent]
		if !ok || !known || k.Agent != agent.ID || !equalDigest(k.Digest, digest) {
			return nil
		}
		leaked = LeakedKey
		alive := k.Status == storage.KeyActive && (k.ExpiresAt == 0 || u.now < k.ExpiresAt)
		note := func() {
			e := u.agentEvent(l.reporter, audit.ActionAgentKeyLeaked, agent)
			e.Target = audit.Ref{Kind: audit.KindKey, ID: k.ID}
			l.describe(e, alive)
		}
		if !alive {
			m.refuse(u, refusalKey{organization: u.organization, subject: k.ID, reason: "leaked"}, note)
			return nil
		}
		note()
		if err := u.revokeKey(l.doer, agent, k); err != nil {
			return err
		}
		if _, err := u.suspend(l.doer, l.by, agent); err != nil {
			return err
		}
		return m.notify(u, Notification{Topic: TopicKeyLeaked, Agent: agent.ID, AgentName: agent.Name, Key: k.ID, Reason: l.source()})
	})
	return unlessFailed(leaked, err)
}

// leakedToken revokes the token that was found.
func (m *Manager) leakedToken(ctx context.Context, l leak, organization, id string) (leaked Leaked, err error) {
	ref := recordRef{kindToken, id}
	err = l.act(ctx, m, organization, needs{records: []recordRef{ref}}, func(u *unit) error {
		leaked = LeakedNothing
		r, ok := u.records[ref]
		if !ok {
			return nil
		}
		p, err := parseToken(r)
		if err != nil {
			return err
		}
		leaked = LeakedToken
		alive := !p.Revoked && (p.ExpiresAt == 0 || u.now < p.ExpiresAt)
		note := func() {
			e := u.event(l.reporter, audit.ActionTokenLeaked)
			e.Target = audit.Ref{Kind: audit.KindToken, ID: p.ID}
			l.describe(e, alive)
			e.Details["administrator"] = p.Administrator
		}
		if !alive {
			m.refuse(u, refusalKey{organization: u.organization, subject: p.ID, reason: "leaked"}, note)
			return nil
		}
		note()
		if err := u.revokeToken(l.doer, r, p); err != nil {
			return err
		}
		return m.notify(u, Notification{Topic: TopicTokenLeaked, Key: p.ID, Reason: l.source()})
	})
	return unlessFailed(leaked, err)
}

// unlessFailed answers nothing where nothing was done.
func unlessFailed(l Leaked, err error) (Leaked, error) {
	if err != nil {
		return LeakedNothing, err
	}
	return l, nil
}

func (l leak) source() string {
	if slices.Contains(LeakSources(), l.Source) {
		return l.Source
	}
	return "other"
}

// describe says where the secret was found, as far as a log may hold it, and whether
// it was of any use.
func (l leak) describe(e *entry, alive bool) {
	e.Details = map[string]string{"source": l.source(), "in_use": strconv.FormatBool(alive)}
	u, err := url.Parse(l.URL)
	if err != nil || u.Hostname() == "" {
		return
	}
	if host, err := asciiHost(u.Hostname()); err == nil && len(host) <= maxHost && strings.Trim(host, hostCharacters) == "" {
		e.personal.Extra = map[string]string{"found_at": host}
	}
}

// maxHost is the longest name of a host, hostCharacters what one consists of.
const (
	maxHost        = 253
	hostCharacters = "abcdefghijklmnopqrstuvwxyz0123456789-.:"
)

// maxToken is the longest token that is looked up, in bytes.
const maxToken = 512
