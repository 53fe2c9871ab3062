package notifier_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/examples/notifier"
)

// TestWebhook: what a webhook refuses comes again, as the same notification.
func TestWebhook(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var seen []agentkey.Notification
	answer := http.StatusServiceUnavailable
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n agentkey.Notification
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil || r.Header.Get("Idempotency-Key") != n.ID {
			t.Errorf("body or Idempotency-Key: %v", err)
		}
		seen = append(seen, n)
		w.WriteHeader(answer)
	}))
	defer hook.Close()

	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Notifier = notifier.New(hook.URL, hook.Client()) })
	_, caller := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_notifier")
	_, err := k.RequestAccess(t.Context(), caller, agentkey.RequestInput{Tool: tool.ID, Reason: "to triage issues"})
	is.NoErr(err)
	is.Equal(len(seen), 0) // never within the agent's request

	is.NoErr(k.Sweep(t.Context())) // Run does this every few seconds
	is.Equal(len(seen), 1)
	answer = http.StatusNoContent
	is.NoErr(k.Sweep(t.Context()))
	is.Equal(len(seen), 1) // not at once
	k.Clock.Advance(time.Minute)
	is.NoErr(k.Sweep(t.Context()))
	k.Clock.Advance(time.Hour)
	is.NoErr(k.Sweep(t.Context()))
	is.Equal(len(seen), 2) // delivered, and that was it
	is.Equal(seen[0], seen[1])
	is.Equal(seen[0].Topic, agentkey.TopicAccessRequested)
	is.Equal(seen[0].AgentName+" asks for "+seen[0].ToolName+" "+seen[0].Reason, "bot asks for Linear to triage issues")
}

func TestErrorsDoNotNameTheURL(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	hook := httptest.NewServer(http.NotFoundHandler())
	url := hook.URL + "/secret-path-of-the-test"
	for _, err := range []error{
		notifier.New(url, hook.Client()).Notify(t.Context(), agentkey.Notification{}),
		notifier.New("http://\x00secret-path-of-the-test", hook.Client()).Notify(t.Context(), agentkey.Notification{}),
	} {
		is.True(err != nil)
		is.True(!strings.Contains(err.Error(), "secret-path"))
	}
	hook.Close()
	err := notifier.New(url, http.DefaultClient).Notify(t.Context(), agentkey.Notification{})
	is.True(err != nil)
	is.True(!strings.Contains(err.Error(), "secret-path"))
}
