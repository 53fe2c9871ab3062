// Command agent is an agent in plain net/http, to be written in any language: it
// finds a tool, asks for access, waits for a person's decision, and fetches the
// credential when it needs it.
//
//	AGENTKEY_URL=http://127.0.0.1:8700 AGENTKEY_KEY=sk_agent_… go run ./examples/agent Linear
//
// With the name of a file after the tool's, it keeps the receipt of the vend there.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) != 2 && len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: agent TOOL [RECEIPT], with AGENTKEY_URL and AGENTKEY_KEY set")
		os.Exit(2)
	}
	a := agent{url: os.Getenv("AGENTKEY_URL"), key: os.Getenv("AGENTKEY_KEY"), poll: 5 * time.Second, out: os.Stdout}
	if len(os.Args) == 3 {
		a.receipt = os.Args[2]
	}
	if err := a.work(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

type agent struct {
	url, key string
	poll     time.Duration // between two looks at a pending request
	out      io.Writer
	receipt  string // the file that takes the receipt of the vend, or empty
}

// work does what the agent is for, with a credential of the tool.
func (a agent) work(ctx context.Context, name string) error {
	tool, err := a.access(ctx, name)
	if err != nil {
		return err
	}
	// Fetched for each piece of work and kept nowhere: a revocation then counts at once.
	var vended struct {
		Credential json.RawMessage `json:"credential"`
		Receipt    json.RawMessage `json:"audit_receipt"`
	}
	if err := a.call(ctx, http.MethodGet, "/api/tools/"+tool+"/credentials", nil, &vended); err != nil {
		return err
	}
	defer clear(vended.Credential)
	// Proof of what was handed out, for `agentkey audit verify-receipt`; no secret.
	if a.receipt != "" {
		if err := os.WriteFile(a.receipt, vended.Receipt, 0o600); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(a.out, "%s: working with the credential\n", name)
	return err
}

// tool is an entry of the catalog.
type tool struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	Access       string `json:"your_access"`
	DenialReason string `json:"denial_reason"`
}

// access gets access to a tool, however long a person takes to decide, and
// answers the tool's id.
func (a agent) access(ctx context.Context, name string) (string, error) {
	said := ""
	for asked := false; ; {
		t, err := a.find(ctx, name)
		if err != nil {
			return "", err
		}
		if t.Access != said {
			said = t.Access
			if _, err := fmt.Fprintf(a.out, "%s: %s\n", name, said); err != nil {
				return "", err
			}
		}
		switch {
		case t.Access == "approved":
			return t.ID, nil
		case t.Access == "denied" && asked:
			return "", fmt.Errorf("denied: %s", t.DenialReason)
		case t.Access != "pending" && !asked:
			request := map[string]any{"reason": "I triage the issues that users report.", "duration": 8 * 3600}
			if err := a.call(ctx, http.MethodPost, "/api/tools/"+t.ID+"/request", request, nil); err != nil {
				return "", err
			}
			asked = true
		case t.Access != "pending":
			return "", fmt.Errorf("access to %s is %s", name, t.Access)
		default:
			asked = true
			if err := pause(ctx, a.poll); err != nil {
				return "", err
			}
		}
	}
}

func (a agent) find(ctx context.Context, name string) (tool, error) {
	var catalog struct {
		Tools []tool `json:"tools"`
	}
	if err := a.call(ctx, http.MethodGet, "/api/tools", nil, &catalog); err != nil {
		return tool{}, err
	}
	for _, t := range catalog.Tools {
		if t.Name == name {
			return t, nil
		}
	}
	return tool{}, fmt.Errorf("there is no tool %s in the catalog", name)
}

// call calls AgentKey and reads its answer into out. When the server says to come
// back later, it does.
func (a agent) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	for {
		wait, err := a.once(ctx, method, path, body, out)
		if err != nil || wait == 0 {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

func (a agent) once(ctx context.Context, method, path string, body []byte, out any) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+a.key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	switch res.StatusCode {
	case http.StatusOK, http.StatusCreated:
		if out == nil {
			return 0, nil
		}
		return 0, json.NewDecoder(res.Body).Decode(out)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && seconds > 0 {
			return time.Duration(seconds) * time.Second, nil
		}
	}
	// Every refusal says what to do about it.
	var refused struct{ Error, Hint string }
	if err := json.NewDecoder(res.Body).Decode(&refused); err != nil {
		return 0, errors.New(res.Status)
	}
	return 0, fmt.Errorf("%s: %s. %s", res.Status, refused.Error, refused.Hint)
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
