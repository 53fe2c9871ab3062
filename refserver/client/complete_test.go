package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/refserver/adminapi"
	"github.com/agentkey-dev/agentkey-go/refserver/agentapi"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

// TestEveryRouteHasAMethod calls every method of both clients and looks which
// routes of the server they ask.
func TestEveryRouteHasAMethod(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := map[string]bool{} // method and path
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.Method+" "+r.URL.Path] = true
		answer(w, http.StatusOK, `{"data":[]}`)
	}))
	defer server.Close()
	o := client.Options{MaxWait: -1}
	admin, err := client.NewAdmin(server.URL, secret(token), o)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := client.NewAgent(server.URL, secret("sk_agent_test_key"), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []any{admin, agent} {
		of := reflect.ValueOf(c)
		for i := range of.NumMethod() {
			callAny(t, of.Method(i))
		}
	}
	routes := adminapi.Routes()
	for path, methods := range agentapi.Routes() {
		routes[path] = slices.DeleteFunc(slices.Clone(methods), func(m string) bool {
			// A schema is for who has no client.
			return m == http.MethodGet && slices.Contains(methods, http.MethodPost)
		})
	}
	for path, methods := range routes {
		for _, method := range methods {
			if method == http.MethodHead || method == http.MethodOptions {
				continue
			}
			found := false
			for was := range asked {
				verb, at, _ := strings.Cut(was, " ")
				found = found || verb == method && fits(path, at)
			}
			if !found {
				t.Errorf("no method asks %s %s", method, path)
			}
		}
	}
}

// fits reports whether a path is one of a route, whose ids are "x" here.
func fits(route, path string) bool {
	want, got := strings.Split(route, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, got, func(a, b string) bool { return a == b || strings.HasPrefix(a, "{") && b == "x" })
}

// callAny calls a method with the least that it takes, and walks what it gives.
func callAny(t *testing.T, method reflect.Value) {
	t.Helper()
	in := make([]reflect.Value, 0, method.Type().NumIn())
	for i := range method.Type().NumIn() {
		if method.Type().IsVariadic() && i == method.Type().NumIn()-1 {
			break
		}
		in = append(in, anyOf(t, method.Type().In(i)))
	}
	for _, out := range method.Call(in) {
		if out.Kind() == reflect.Func && out.Type().NumIn() == 1 && !out.IsNil() { // an iter.Seq2
			yield := reflect.MakeFunc(out.Type().In(0), func([]reflect.Value) []reflect.Value { return []reflect.Value{reflect.ValueOf(false)} })
			out.Call([]reflect.Value{yield})
		}
	}
}

func anyOf(t *testing.T, want reflect.Type) reflect.Value {
	t.Helper()
	for _, v := range []any{t.Context(), io.Discard, "x", secret("lin_api_test_x"), time.Second} {
		if reflect.TypeOf(v).AssignableTo(want) && want.Kind() != reflect.Struct {
			return reflect.ValueOf(v)
		}
	}
	if want.Kind() == reflect.Func {
		return reflect.MakeFunc(want, func([]reflect.Value) []reflect.Value {
			out := make([]reflect.Value, want.NumOut())
			for i := range out {
				out[i] = reflect.Zero(want.Out(i))
			}
			return out
		})
	}
	return reflect.Zero(want)
}
