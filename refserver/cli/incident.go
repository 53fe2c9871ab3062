package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

type incidentCommands struct {
	Report    incidentReport    `cmd:"" help:"Tell what left, to whom, what to rotate at the services, and what is open."`
	LeakedKey incidentLeakedKey `cmd:"" help:"Report a key or token that was found: it is revoked, and its agent suspended."`
}

type incidentReport struct {
	readFlags
	Agent    string `xor:"about" required:"" help:"About this agent: name or id."`
	Tool     string `xor:"about" required:"" help:"About this tool: name, key or id."`
	Key      string `xor:"about" required:"" placeholder:"ID" help:"About the agent's key of this id."`
	KeyStdin bool   `xor:"about" required:"" help:"About the agent's key on standard input; only its SHA-256 is sent."`
	IP       string `name:"ip" xor:"about" required:"" placeholder:"ADDRESS" help:"About this address, or range such as 192.0.2.0/24. Every event of the span is read for it."`
	Since    moment `required:"" placeholder:"WHEN" help:"From: 2026-01-31, a time, or 8h for that long ago."`
	Until    moment `placeholder:"WHEN" help:"Up to: as --since. Default: now."`
}

// Run reports on an incident, in Markdown or JSON.
func (c *incidentReport) Run(ctx context.Context, s *session) error {
	if c.Since.never {
		return usagef("--since must say from when")
	}
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	now := s.options.Clock()
	q := client.IncidentQuery{Key: c.Key, IP: c.IP, Since: c.Since.past(now), Until: c.Until.past(now)}
	if c.Agent != "" {
		found, err := findAgent(ctx, admin, c.Agent)
		if err != nil {
			return err
		}
		q.Agent = found.id
	}
	if c.Tool != "" {
		found, err := findTool(ctx, admin, c.Tool)
		if err != nil {
			return err
		}
		q.Tool = found.id
	}
	if c.KeyStdin {
		secret, err := readCredential(s.stdin)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(secret.Bytes())
		secret.Destroy()
		q.Digest = hex.EncodeToString(sum[:])
	}
	shown := s.progress("the server reads the log")
	body, err := admin.Incident(ctx, q)
	shown.end()
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if c.JSON {
		_, err = io.Copy(s.stdout, body)
		return err
	}
	return s.incident(body)
}

// incident writes a report in Markdown as it arrives.
func (s *session) incident(body io.Reader) error {
	d := json.NewDecoder(body)
	if err := enter(d, "data"); err != nil {
		return err
	}
	facts := make(map[string]json.RawMessage)
	var credentials []client.IncidentCredential
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return errIncident
		}
		switch name {
		case "credentials":
			if d.Decode(&credentials) != nil {
				return errIncident
			}
			if err := s.incidentHead(facts, credentials); err != nil {
				return err
			}
		case "openGrants":
			err = section(s, d, "Open grants", "| agent | tool | status | grant |\n|---|---|---|---|", func(g client.Grant) string {
				return row(g.AgentName, g.ToolName, string(g.Status), g.ID)
			})
		case "events":
			err = section(s, d, "Events", "| number | time | kind | action | outcome | actor | address |\n|---|---|---|---|---|---|---|", func(e client.IncidentEvent) string {
				return row(fmt.Sprint(e.Seq), stamp(e.CreatedAt), e.Kind, e.Action, strings.TrimSpace(e.Outcome+" "+e.Reason), strings.TrimSpace(e.ActorType+" "+e.ActorLabel), text(e.Address))
			})
		default:
			var raw json.RawMessage
			if d.Decode(&raw) != nil {
				return errIncident
			}
			facts[fmt.Sprint(name)] = raw
		}
		if err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return errIncident
	}
	return nil
}

var errIncident = errors.New("the report was cut off or is not one")

// enter goes into an object's first member, which has that name and is an object.
func enter(d *json.Decoder, name string) error {
	for _, want := range []any{json.Delim('{'), name, json.Delim('{')} {
		if got, err := d.Token(); err != nil || got != want {
			return errIncident
		}
	}
	return nil
}

func section[T any](s *session, d *json.Decoder, title, head string, line func(T) string) error {
	if err := s.say("\n## %s\n\n%s", title, head); err != nil {
		return err
	}
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errIncident
	}
	for d.More() {
		var item T
		if d.Decode(&item) != nil {
			return errIncident
		}
		if err := s.say("%s", line(item)); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return errIncident
	}
	return nil
}

// row is a row of a Markdown table.
func row(cells ...string) string {
	for i, c := range cells {
		cells[i] = markdown(c)
	}
	return "| " + strings.Join(cells, " | ") + " |"
}

// inMarkdown keeps text from being markup: names are whatever somebody chose, and the
// report is read where a link, a picture or a tag would be one.
var inMarkdown = strings.NewReplacer(`\`, `\\`, "|", `\|`, "[", `\[`, "]", `\]`, "<", `\<`, ">", `\>`, "`", "\\`")

func markdown(text string) string { return inMarkdown.Replace(clean(text)) }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000Z") }

func (s *session) incidentHead(facts map[string]json.RawMessage, credentials []client.IncidentCredential) error {
	fact := func(name string) string {
		var v any
		d := json.NewDecoder(strings.NewReader(string(facts[name])))
		d.UseNumber()
		if d.Decode(&v) != nil || v == nil {
			return "-"
		}
		return markdown(fmt.Sprint(v))
	}
	err := s.say("# Incident: %s %s %s\n\n%s to %s; made at %s.\n\n- vends: %s, agents they went to: %s\n- refusals: %s\n- failed authentication with known keys: %s, by strangers: %s\n- acts of administrators: %s",
		fact("subjectType"), fact("subjectId"), fact("name"), fact("since"), fact("until"), fact("madeAt"),
		fact("vends"), fact("agents"), fact("refusals"), fact("failedAuthentication"), fact("failedByStrangers"), fact("administration"))
	if err != nil {
		return err
	}
	if fact("incomplete") == "true" {
		if err := s.say("\n**Incomplete**: retention has removed content of events below %s; some may lie in the span.", fact("removedBelow")); err != nil {
			return err
		}
	}
	if n := fact("erased"); n != "0" {
		if err := s.say("\n**Not told**: of %s events of the span the personal part was erased.", n); err != nil {
			return err
		}
	}
	if err := s.say("\n## What was vended\n\n| rotate at the service | tool | credential | revision | vends | agents | last vend | state |\n|---|---|---|---|---|---|---|---|"); err != nil {
		return err
	}
	for _, c := range credentials {
		rotate, state := "no", c.State
		if c.RotateUpstream {
			rotate = "**yes**"
		}
		if c.ReplacedAt != nil {
			state += " " + stamp(*c.ReplacedAt)
		}
		if err := s.say("%s", row(rotate, text(c.ToolName), c.Credential, fmt.Sprint(c.Revision), fmt.Sprint(c.Vends), fmt.Sprint(c.Agents), stamp(c.Last)+fmt.Sprintf(" (event %d)", c.LastSeq), state)); err != nil {
			return err
		}
	}
	var signed string
	_ = json.Unmarshal(facts["checkpoint"], &signed)
	var lines strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(signed), "\n") {
		lines.WriteString("\n    " + clean(line))
	}
	return s.say("\n## The checkpoint that it rests on\n%s\n\nEach event below is proven for it by `agentkey audit prove --seq NUMBER --size %s`.", lines.String(), fact("logSize"))
}

type incidentLeakedKey struct {
	serverFlags
	Stdin bool   `required:"" help:"Read the key or token from standard input. It is never an argument."`
	URL   string `placeholder:"URL" help:"Where it was found; only the host is recorded."`
}

// Run reports a leak.
func (c *incidentLeakedKey) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	secret, err := readCredential(s.stdin)
	if err != nil {
		return err
	}
	defer secret.Destroy()
	kind, err := admin.ReportLeak(ctx, secret, c.URL)
	if err != nil {
		return err
	}
	switch kind {
	case "agent_key":
		return s.say("an agent's key: it is revoked, and its agent suspended if the key was of any use; `agentkey incident report --key-stdin` tells what it was used for")
	case "admin_token":
		return s.say("an administrator's token: it is revoked")
	}
	return errors.New("nothing of this organization: it is no key or token that it knows")
}
