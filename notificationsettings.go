package agentkey

import (
	"context"
	"errors"
	"regexp"
	"strconv"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// NotificationSettings say which channels an organization's notifications have a
// webhook for. A webhook's URL is a credential: nothing answers it.
type NotificationSettings struct {
	Slack, Discord Webhook
}

// Webhook is what is told of a webhook.
type Webhook struct {
	Configured bool
	Preview    string // how its URL begins, never more than a part of the host; empty without one
}

// UpdateNotificationSettingsInput replaces or removes webhooks. What is left out
// stays as it is. The URLs stay the caller's to destroy.
type UpdateNotificationSettingsInput struct {
	// Slack and Discord are the URLs as the services give them: https, of one of
	// their hosts, at most 2048 bytes. A blank one is left out.
	Slack   *Secret `json:"slackWebhook"`
	Discord *Secret `json:"discordWebhook"`
	// ClearSlack and ClearDiscord remove a webhook, whatever URL is given beside.
	ClearSlack   bool `json:"clearSlack"`
	ClearDiscord bool `json:"clearDiscord"`
	// Reachable says whether a host leads to nothing but public addresses. It is asked
	// for the host of each URL that is to be kept, once the actor may keep it and no
	// log is held. Nil: whoever delivers finds out.
	Reachable func(ctx context.Context, host string) bool `json:"-"`
}

// kindWebhook is the kind of the records that hold a webhook each. One that
// replaces another is a record of its own, as it is with credentials: the seal of
// its URL depends on nothing that may change before the commit.
const kindWebhook = "notification_webhook"

type webhookPayload struct {
	Channel        string `json:"channel"`
	Preview        string `json:"preview"`
	Sealed         []byte `json:"sealed"` // the URL
	SealedRevision int64  `json:"sealed_revision"`
	CreatedAt      int64  `json:"created_at"`
}

// channel is a service that takes notifications at a webhook.
type channel struct {
	name, field string
	// url is what the URL of a webhook there looks like, with the host as its first
	// group: spelled plainly, without a user, an escape, a dot segment, or a port other
	// than 443. It is matched on bytes, so that no string is made of what is secret.
	url   *regexp.Regexp
	wants string
}

const webhookRest = `(?:/[A-Za-z0-9_-]+)+/?(?:\?[A-Za-z0-9_=&-]*)?$`

var (
	slack = channel{
		"slack", "slackWebhook",
		regexp.MustCompile(`^(?i:https)://((?i:hooks\.slack(?:-gov)?\.com))(?::443)?/services` + webhookRest),
		"must be the URL of a webhook at https://hooks.slack.com/services/ or hooks.slack-gov.com",
	}
	discord = channel{
		"discord", "discordWebhook",
		regexp.MustCompile(`^(?i:https)://((?i:(?:ptb\.|canary\.)?discord\.com|discordapp\.com))(?::443)?/api/webhooks` + webhookRest),
		"must be the URL of a webhook at https://discord.com/api/webhooks/, discordapp.com, or ptb. or canary.discord.com",
	}
)

const (
	maxWebhook     = 2048 // bytes
	webhookPreview = 18   // bytes, which end within the shortest host
)

// webhookChange is what becomes of one channel's webhook.
type webhookChange struct {
	channel
	next  *Secret // nil: none is given that counts
	clear bool
	row   storage.Record // of next
	value webhookPayload
}

func (in *UpdateNotificationSettingsInput) changes() []*webhookChange {
	changes := []*webhookChange{{channel: slack, next: in.Slack, clear: in.ClearSlack}, {channel: discord, next: in.Discord, clear: in.ClearDiscord}}
	for _, c := range changes {
		if c.clear || blank(c.next) {
			c.next = nil
		}
	}
	return changes
}

// problems are those of the URLs that count.
func (in *UpdateNotificationSettingsInput) problems() []FieldError {
	var errs []error
	for _, c := range in.changes() {
		switch url := c.next.Bytes(); {
		case c.next == nil:
		case len(url) > maxWebhook:
			errs = append(errs, invalid(c.field, "must have at most "+strconv.Itoa(maxWebhook)+" bytes"))
		case !c.url.Match(url):
			errs = append(errs, invalid(c.field, c.wants))
		}
	}
	return fieldsOf(errs...)
}

// NotificationSettings reads which webhooks the organization has.
//
// The errors: ErrForbidden, ErrLimited, ErrUnavailable.
func (m *Manager) NotificationSettings(ctx context.Context, a Actor) (s NotificationSettings, err error) {
	if err := m.authorize(ctx, a, OpReadNotificationSettings); err != nil {
		return s, err
	}
	var damaged error
	err = m.view(ctx, a.Organization, webhookNeeds, func(u *unit) { s, damaged = u.notificationSettings() })
	return s, errors.Join(err, damaged)
}

var webhookNeeds = needs{recordKinds: []string{kindWebhook}}

// UpdateNotificationSettings replaces and removes webhooks. Their URLs are sealed
// like credentials; the event holds digests of what was sealed. Where nothing
// changes, there is none.
//
// The errors: ErrForbidden, ErrInvalid, also for a host that is not Reachable,
// ErrLimited, ErrUnavailable.
func (m *Manager) UpdateNotificationSettings(ctx context.Context, a Actor, in UpdateNotificationSettingsInput) (NotificationSettings, error) {
	if err := m.authorize(ctx, a, OpUpdateNotificationSettings); err != nil {
		return NotificationSettings{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return NotificationSettings{}, err
	}
	changes := in.changes()
	for _, c := range changes {
		if c.next == nil || in.Reachable == nil {
			continue
		}
		if host := string(c.url.FindSubmatch(c.next.Bytes())[1]); !in.Reachable(ctx, host) {
			return NotificationSettings{}, invalid(c.field, "must lead to public addresses, and can't be resolved to such now")
		}
	}
	seal := func() error {
		for _, c := range changes {
			if err := m.sealWebhook(ctx, a.Organization, c); err != nil {
				return err
			}
		}
		return nil
	}
	if err := seal(); err != nil {
		return NotificationSettings{}, err
	}
	var out NotificationSettings
	err := m.actSealingAnew(ctx, a, OpUpdateNotificationSettings, webhookNeeds, seal, func(u *unit) (err error) {
		if err := u.changeWebhooks(a, changes); err != nil {
			return err
		}
		out, err = u.notificationSettings()
		return err
	})
	return out, err
}

// sealWebhook makes the record of a webhook that is to be.
func (m *Manager) sealWebhook(ctx context.Context, organization string, c *webhookChange) (err error) {
	if c.next == nil {
		return nil
	}
	url := c.next.Bytes()
	c.row = storage.Record{Organization: organization, Kind: kindWebhook, ID: newID(), Revision: 1}
	c.value = webhookPayload{Channel: c.name, Preview: string(url[:webhookPreview]) + "…", SealedRevision: 1}
	c.value.Sealed, err = m.sealAt(ctx, webhookPlace(m.installation, c.row, c.value), c.next)
	return err
}

// webhookPlace is where the URL of a webhook is sealed to.
func webhookPlace(installation string, r storage.Record, p webhookPayload) vault.Place {
	return vault.Place{
		Installation: installation, Organization: r.Organization, Kind: r.Kind, Record: r.ID, Field: "url", Revision: p.SealedRevision,
	}
}

// changeWebhooks does what is asked for under the head, in one event.
func (u *unit) changeWebhooks(a Actor, changes []*webhookChange) error {
	found, err := u.webhooks()
	if err != nil {
		return err
	}
	var e *entry
	for _, c := range changes {
		old, present := found[c.name]
		if c.next == nil && (!c.clear || !present) {
			continue
		}
		if e == nil {
			e = u.event(a.who(), audit.ActionNotificationSettingsUpdated)
			e.Target = audit.Ref{Kind: audit.KindNotificationSettings, ID: u.organization}
		}
		if present {
			u.deleteRecord(e, old.row)
		}
		if c.next == nil {
			continue
		}
		p := c.value
		p.CreatedAt = u.now
		if err := u.putWebhook(e, c.row, p); err != nil {
			return err
		}
	}
	if e == nil {
		return nil
	}
	s, err := u.notificationSettings()
	e.Details = map[string]string{
		"slack_configured": strconv.FormatBool(s.Slack.Configured), "discord_configured": strconv.FormatBool(s.Discord.Configured),
	}
	return err
}

// putWebhook writes a webhook whose URL was just sealed.
func (u *unit) putWebhook(e *entry, r storage.Record, p webhookPayload) error {
	if err := u.justSealed(e, r.Kind, r.ID, p.Sealed); err != nil {
		return err
	}
	return u.putPayload(e, r, p)
}

type webhook struct {
	row   storage.Record
	value webhookPayload
}

// webhooks gives the organization's webhooks by channel. A second one for a channel
// was put back by hand.
func (u *unit) webhooks() (map[string]webhook, error) {
	found := make(map[string]webhook)
	for ref, r := range u.records {
		if ref.kind != kindWebhook {
			continue
		}
		p, err := parsePayload[webhookPayload](r)
		if err != nil {
			return nil, err
		}
		if _, twice := found[p.Channel]; twice {
			return nil, &integrityError{kind: r.Kind, id: r.ID}
		}
		found[p.Channel] = webhook{r, p}
	}
	return found, nil
}

func (u *unit) notificationSettings() (s NotificationSettings, err error) {
	found, err := u.webhooks()
	for name, into := range map[string]*Webhook{slack.name: &s.Slack, discord.name: &s.Discord} {
		if w, ok := found[name]; ok {
			*into = Webhook{Configured: true, Preview: w.value.Preview}
		}
	}
	return s, err
}
