package refserver_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/transittest"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/transit"
)

// inProcess carries requests to a handler without a network, so that the time is
// the test's own.
type inProcess struct{ http.Handler }

func (d inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	if r.Body != nil {
		_ = r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

const transitToken = "hvs.test.not-a-secret"

// TestKeyServiceFaults: over HTTP, with the data keys in a key service: agents are
// served while the keys are in memory, then told 503 within three seconds, and
// served again without a restart.
func TestKeyServiceFaults(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"sealed":  answer(http.StatusServiceUnavailable, ""),
		"refuses": answer(http.StatusForbidden, `{"errors":["permission denied"]}`),
		"forgot":  answer(http.StatusNotFound, ""),
		"wrong bytes": func(w http.ResponseWriter, r *http.Request) bool {
			return strings.Contains(r.URL.Path, "/decrypt/") && answer(http.StatusOK, `{"data":{"plaintext":"`+strings.Repeat("A", 88)+`"}}`)(w, r)
		},
		"slow": func(_ http.ResponseWriter, r *http.Request) bool {
			select {
			case <-time.After(30 * time.Second):
			case <-r.Context().Done():
			}
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				service := transittest.New(time.Now)
				service.AddKey("transit/agentkey", "aes256-gcm96", false)
				service.AddToken(transitToken, 0, 0, false)
				keys, err := transit.New(transit.Config{
					Address: "https://vault.example:8200", Key: "agentkey", Clock: time.Now, Transport: inProcess{service},
					Auth: transit.Token(func() (*vault.Secret, error) { return vault.NewSecret([]byte(transitToken)), nil }),
				})
				is.NoErr(err)
				f := servertest.New(t, servertest.Options{Keys: keys, Policies: servertest.Unlimited()})
				_, key := f.Agent("bot")
				tool := f.Tool("Linear", "lin_api_test_faults")
				f.Approved(key, tool)
				vend := func() int {
					began := time.Now()
					res := f.Do("GET", "/api/tools/"+tool+"/credentials", key, "")
					is.True(time.Since(began) <= 3*time.Second)
					is.Equal(strings.Contains(res.Body, "lin_api_test_faults"), res.Status == http.StatusOK)
					if res.Status == http.StatusServiceUnavailable {
						is.Equal(res.Header.Get("Retry-After"), "2")
					}
					return res.Status
				}
				replace := func() int {
					began := time.Now()
					res := f.Do("PUT", "/api/admin/tools/"+tool, f.Owner, `{"credential":"lin_api_test_faults"}`)
					is.True(time.Since(began) <= 3*time.Second)
					return res.Status
				}
				f.Clock.Add(5 * time.Minute) // the keys are unwrapped anew
				is.Equal(vend(), http.StatusOK)
				service.Fail(fault)
				f.Clock.Add(5*time.Minute - time.Microsecond)
				is.Equal(vend(), http.StatusOK)
				is.Equal(replace(), http.StatusOK)
				is.Equal(f.Do("GET", "/readyz", "", "").Status, http.StatusOK)
				f.Clock.Add(time.Microsecond)
				is.Equal(vend(), http.StatusServiceUnavailable)
				is.Equal(replace(), http.StatusServiceUnavailable)
				is.Equal(f.Do("GET", "/readyz", "", "").Status, http.StatusServiceUnavailable)
				is.Equal(f.Do("GET", "/livez", "", "").Status, http.StatusOK)
				service.Fail(nil)
				is.Equal(vend(), http.StatusOK)
				is.Equal(replace(), http.StatusOK)
				is.Equal(f.Do("GET", "/readyz", "", "").Status, http.StatusOK)
				is.True(!strings.Contains(f.Log.String(), transitToken) && !strings.Contains(f.Log.String(), "lin_api_test"))
				synctest.Wait()
			})
		})
	}
}
