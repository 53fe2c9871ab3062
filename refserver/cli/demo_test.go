package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/cli"
)

// fault stands between the demo and its server and lets one request go wrong.
type fault struct {
	at     int64 // the request's number, from 1
	does   func(*http.Request, func() *http.Response) *http.Response
	number *atomic.Int64
	next   http.RoundTripper
}

// RoundTrip passes on all requests but one.
func (f fault) RoundTrip(r *http.Request) (*http.Response, error) {
	pass := func() (*http.Response, error) { return f.next.RoundTrip(r) }
	if f.number.Add(1) != f.at {
		return pass()
	}
	res := f.does(r, func() *http.Response {
		res, err := pass()
		if err != nil {
			panic(err)
		}
		return res
	})
	if res == nil {
		return nil, errors.New("connection lost")
	}
	return res, nil
}

func answer(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
	}
}

// instead answers in the server's place.
func instead(status int, body string) func(*http.Request, func() *http.Response) *http.Response {
	return func(*http.Request, func() *http.Response) *http.Response { return answer(status, body) }
}

// edited passes the request on and edits the answer.
func edited(before, after string) func(*http.Request, func() *http.Response) *http.Response {
	return func(_ *http.Request, pass func() *http.Response) *http.Response {
		res := pass()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			panic(err)
		}
		changed := bytes.Replace(body, []byte(before), []byte(after), 1)
		if bytes.Equal(changed, body) {
			panic(fmt.Sprintf("nothing to edit in %s", body))
		}
		return answer(res.StatusCode, string(changed))
	}
}

func play(ctx context.Context, out io.Writer, f fault) error {
	f.number = &atomic.Int64{}
	return cli.PlayDemo(ctx, out, func(next http.RoundTripper) http.RoundTripper {
		f.next = next
		return f
	})
}

func TestDemo(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var out bytes.Buffer
	began := time.Now() // the one test of real time: the demo is promised to be quick
	is.NoErr(play(t.Context(), &out, fault{}))
	is.True(time.Since(began) < 10*time.Second)
	is.Equal(strings.Count(out.String(), "lin_api_demo_"), 1)
	is.True(!strings.Contains(out.String(), "sk_a"))
}

// requestOf is the number of the first request of each step.
var requestOf = map[int]int64{1: 1, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 9: 10, 10: 11, 11: 12, 12: 13, 13: 14}

// TestDemoNoticesEveryFault breaks each step in each of the ways that it could
// break, and wants the demo to fail at just that step.
func TestDemoNoticesEveryFault(t *testing.T) {
	t.Parallel()
	vended := `{"tool_id":"t","credential":"lin_api_demo_other","audit_receipt":{"log_index":1}}`
	cases := []struct {
		name string
		step int
		does func(*http.Request, func() *http.Response) *http.Response
	}{
		{"the agent gets no key", 1, instead(201, `{"data":{"agent_id":"a"}}`)},
		{"the agent gets a key that is not its own", 1, edited("sk_agent_", "sk_agent_0")},
		{"the tool is not added", 2, instead(201, `{"data":{"id":"00000000-0000-0000-0000-000000000000"}}`)},
		{"access from the start", 3, edited(`"your_access":"none"`, `"your_access":"approved"`)},
		{"an empty catalog", 3, instead(200, `{"tools":[]}`)},
		{"vended without access", 4, instead(200, vended)},
		{"refused without a hint", 4, instead(403, `{"error":"refused"}`)},
		{"not found instead of refused", 4, instead(404, `{"error":"no such tool","hint":"look again"}`)},
		{"approved without a person", 5, edited(`"status":"pending"`, `"status":"approved"`)},
		{"a request without id", 5, instead(201, `{"status":"pending"}`)},
		{"vended while pending", 6, instead(200, vended)},
		{"the same hint as before asking", 6, instead(403, `{"error":"no grant","hint":"You have not asked for this tool yet: request access with a reason, and a person will decide."}`)},
		{"approved without an end", 7, instead(200, `{"data":{"status":"approved"}}`)},
		{"approved for longer", 7, instead(200, `{"data":{"status":"approved","expiresAt":"2999-01-01T00:00:00.000Z"}}`)},
		{"still pending", 7, edited(`"status":"approved"`, `"status":"pending"`)},
		{"refused in spite of approval", 8, instead(403, `{"error":"refused","hint":"something new"}`)},
		{"another credential", 8, edited(`"credential":"lin_api_demo_`, `"credential":"lin_api_demo_0`)},
		{"without a receipt", 8, edited(`"audit_receipt":`, `"receipt":`)},
		{"the vend was not counted", 9, edited(`"vends":1`, `"vends":0`)},
		{"vended after the revocation", 10, instead(200, vended)},
		{"refused as before asking", 10, instead(403, `{"error":"no grant","hint":"You have not asked for this tool yet: request access with a reason, and a person will decide."}`)},
		{"an event is missing", 11, edited(`credential.vended`, `credential.other`)},
		{"an empty log", 11, instead(200, `{"data":[]}`)},
		{"the log does not verify", 12, edited(`"ok":true`, `"ok":false`)},
		{"the log is too short", 12, instead(200, `{"data":{"ok":true,"events":3}}`)},
		{"the records disagree", 13, edited(`"ok":true`, `"ok":false`)},
		{"nothing was compared", 13, instead(200, `{"data":{"ok":true,"events":12,"records":0}}`)},
	}
	for step := 1; step <= cli.DemoSteps(); step++ {
		cases = append(cases,
			struct {
				name string
				step int
				does func(*http.Request, func() *http.Response) *http.Response
			}{"the server fails", step, instead(500, `{"error":"internal error"}`)},
			struct {
				name string
				step int
				does func(*http.Request, func() *http.Response) *http.Response
			}{"the connection is lost", step, func(*http.Request, func() *http.Response) *http.Response { return nil }},
			struct {
				name string
				step int
				does func(*http.Request, func() *http.Response) *http.Response
			}{"the answer is garbage", step, instead(200, `<html>`)})
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%d %s", c.step, c.name), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			err := play(t.Context(), io.Discard, fault{at: requestOf[c.step], does: c.does})
			is.True(err != nil) // the demo must notice
			// A tool that was not added shows when the agent looks for it.
			if !strings.HasPrefix(err.Error(), fmt.Sprintf("step %d (", c.step)) && c.name != "the tool is not added" {
				t.Errorf("want a failure at step %d, have: %v", c.step, err)
			}
		})
	}
}

// TestDemoNoticesWhatWasNotDone lets the server's answers look right while what
// they say was not done.
func TestDemoNoticesWhatWasNotDone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		step, shows int
		answer      func() string
	}{
		"the approval never came": {7, 8, func() string {
			return `{"data":{"status":"approved","expiresAt":"` + time.Now().Add(8*time.Hour).UTC().Format(time.RFC3339) + `"}}`
		}},
		"the revocation never came": {9, 10, func() string { return `{"data":{"ok":true,"vends":1}}` }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			err := play(t.Context(), io.Discard, fault{at: requestOf[c.step], does: func(*http.Request, func() *http.Response) *http.Response {
				return answer(200, c.answer())
			}})
			is.True(err != nil)
			is.True(strings.HasPrefix(err.Error(), fmt.Sprintf("step %d (", c.shows)))
		})
	}
}

// TestDemoEndsWithItsContext wants no server to be left behind.
func TestDemoEndsWithItsContext(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	url := ""
	err := play(ctx, io.Discard, fault{at: 5, does: func(r *http.Request, _ func() *http.Response) *http.Response {
		url = "http://" + r.URL.Host
		cancel()
		return nil
	}})
	is.True(err != nil)
	_, err = http.Get(url + "/livez")
	is.True(err != nil) // nobody answers
}
