package load_test

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/load"
)

// target serves requests for /a and /b in this process.
func target(t *testing.T, h http.HandlerFunc) load.Target {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return load.Target{
		Address: strings.TrimPrefix(s.URL, "http://"), Process: os.Getpid(),
		Requests: [][]byte{[]byte("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"), []byte("GET /b HTTP/1.1\r\nHost: x\r\n\r\n")},
	}
}

// TestRun: every request is sent and counted, in turn, on as many connections as
// were asked for.
func TestRun(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var served, a atomic.Int64
	remote := make(map[string]bool)
	held := make(chan struct{}, 1)
	s := target(t, func(w http.ResponseWriter, r *http.Request) {
		held <- struct{}{}
		remote[r.RemoteAddr] = true
		<-held
		served.Add(1)
		if r.URL.Path == "/a" {
			a.Add(1)
		}
		_, _ = io.WriteString(w, "an answer")
	})
	seen, err := load.Run(t.Context(), s, 3, 1, 30*time.Millisecond, time.Now)
	is.NoErr(err)
	is.Equal(len(remote), 3)
	is.True(served.Load() >= 6)            // one to begin with and one that counts on each
	is.True(2*a.Load() <= served.Load()+3) // each connection takes them in turn
	is.True(2*a.Load() >= served.Load()-3) //
	is.True(seen.PerSecond > 0)            //
	is.True(0 < seen.P50)                  //
	is.True(seen.P50 <= seen.P99)          //
	is.True(seen.P99 <= seen.P999)         //
	is.True(seen.P999 < time.Minute)       //
	is.True(!seen.MeasuresProcess || seen.Memory > 1<<20)
}

// TestRunRefusesWhatIsNoVend: an answer that is not 200, or can't be read, is no
// figure.
func TestRunRefusesWhatIsNoVend(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"status 503": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"no length":  func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() },
		"no answer":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		_, err := load.Run(t.Context(), target(t, h), 2, 0, time.Millisecond, time.Now)
		if err == nil {
			t.Errorf("%s: measured", name)
		}
	}
}

// TestRunEndsWithItsContext, also while the server keeps silent.
func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	var n atomic.Int64
	silent := make(chan struct{})
	s := target(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) > 1 {
			cancel()
			<-silent
		}
	})
	defer close(silent)
	_, err := load.Run(ctx, s, 1, 0, time.Hour, time.Now)
	is.True(errors.Is(err, context.Canceled))
}

func TestSpread(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	is.Equal(load.Of([]float64{3, 1, 2}), load.Spread{Median: 2, Low: 1, High: 3})
	is.Equal(load.Of([]float64{4, 1, 2, 3}), load.Spread{Median: 2.5, Low: 1, High: 4})
}

// TestPlot: the plot is XML, shows every server by name, and every point within
// its frame.
func TestPlot(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var b strings.Builder
	err := load.Plot(&b, "a & b", []load.Line{
		{Name: "<one>", Points: []load.Point{{1, 900, 0.9, 1.4}, {64, 40_000, 1.5, 30}}},
		{Name: "bare", Points: []load.Point{{1, 20_000, 0.05, 0.08}}},
	})
	is.NoErr(err)
	circles, text := 0, ""
	for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		is.NoErr(err)
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name.Local == "circle" {
				circles++
			}
		case xml.CharData:
			text += string(token) + "|"
		}
	}
	is.Equal(circles, 6) // the median and the 99th percentile of each point
	for _, want := range []string{"a & b|", "|<one> p50|", "|<one> p99|", "|bare p50|", "|64|", "|100000|", "|0.01 ms|"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plot does not show %s: %s", want, text)
		}
	}
	for _, bad := range [][]load.Line{nil, {{Name: "none"}}, {{Name: "zero", Points: []load.Point{{1, 0, 1, 1}}}}} {
		is.True(load.Plot(io.Discard, "", bad) != nil)
	}
}
