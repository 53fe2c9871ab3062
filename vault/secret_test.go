package vault_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
)

func isErr(err, target error) bool { return errors.Is(err, target) }

func TestSecretOwnsAndZeroes(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	array := []byte("lin_api_test_owned|neighbour")
	b := array[:18]
	s := vault.NewSecret(b)
	is.Equal(string(s.Bytes()), "lin_api_test_owned")
	is.Equal(s.Len(), 18)
	is.True(&s.Bytes()[0] == &array[0]) // the live bytes, not a copy
	copied := *s
	s.Destroy()
	s.Destroy()
	is.Equal(array[:18], make([]byte, 18))      // zeroed in place
	is.Equal(string(array[18:]), "|neighbour")  // and nothing beyond
	is.Equal(s.Bytes(), nil)                    // forgotten
	is.Equal(copied.Bytes(), nil)               // by copies too
	is.Equal(s.Len(), 0)                        //
	is.Equal((*vault.Secret)(nil).Bytes(), nil) // nil and zero are empty
	is.Equal(new(vault.Secret).Len(), 0)        //
	(*vault.Secret)(nil).Destroy()              // and destroyed without harm
	new(vault.Secret).Destroy()                 //
}

func TestSecretEqual(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	a := secret("lin_api_test_equal")
	is.True(a.Equal(secret("lin_api_test_equal")))
	is.True(!a.Equal(secret("lin_api_test_equaL")))
	is.True(!a.Equal(secret("lin_api_test_equal2")))
	is.True(!a.Equal(nil))
	is.True(vault.NewSecret(nil).Equal(vault.NewSecret([]byte{})))
	destroyed := secret("x")
	destroyed.Destroy()
	is.True(!destroyed.Equal(destroyed)) // never a match by accident
	is.True(!vault.NewSecret(nil).Equal(destroyed))
	is.True(!(*vault.Secret)(nil).Equal(nil))
}

func TestSecretFromReader(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 700)
	for name, tc := range map[string]struct {
		r    io.Reader
		max  int
		want string
		err  error
	}{
		"empty":          {strings.NewReader(""), 10, "", nil},
		"empty, max 0":   {strings.NewReader(""), 0, "", nil},
		"at most":        {strings.NewReader("0123456789"), 10, "0123456789", nil},
		"one too many":   {strings.NewReader("0123456789a"), 10, "", vault.ErrTooLong},
		"max 0":          {strings.NewReader("0"), 0, "", vault.ErrTooLong},
		"negative":       {strings.NewReader(""), -1, "", vault.ErrTooLong},
		"grows":          {strings.NewReader(long), 1 << 20, long, nil},
		"grows to max":   {strings.NewReader(long), len(long), long, nil},
		"grows past max": {strings.NewReader(long), len(long) - 1, "", vault.ErrTooLong},
		"byte by byte":   {iotest.OneByteReader(strings.NewReader(long)), len(long), long, nil},
		"data with EOF":  {iotest.DataErrReader(strings.NewReader(long)), len(long), long, nil},
		"fails":          {iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(long))), 9999, "", iotest.ErrTimeout},
		"max of max":     {strings.NewReader(long), math.MaxInt, long, nil},
		"no progress":    {idle{}, 10, "", io.ErrNoProgress},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			s, err := vault.SecretFromReader(tc.r, tc.max)
			is.True(isErr(err, tc.err))
			is.Equal(string(s.Bytes()), tc.want)
			is.Equal(s == nil, tc.err != nil)
		})
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// hoarder keeps every buffer that it was asked to fill, as far as its capacity.
type hoarder struct {
	r    io.Reader
	bufs [][]byte
}

func (h *hoarder) Read(p []byte) (int, error) {
	h.bufs = append(h.bufs, p[:cap(p)])
	n, err := h.r.Read(p)
	for i := n; i < len(p); i++ {
		p[i] = 0xee // scratch space, as io.Reader allows
	}
	return n, err
}

func TestSecretFromReaderLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("lin_api_test_hoard", 300)
	for name, tc := range map[string]struct {
		r   io.Reader
		max int
	}{
		"read":     {strings.NewReader(long), len(long) + 1000},
		"too long": {strings.NewReader(long), len(long) - 1},
		"failed":   {io.MultiReader(strings.NewReader(long), iotest.ErrReader(io.ErrUnexpectedEOF)), len(long)},
		"stalled":  {io.MultiReader(strings.NewReader(long), idle{}), len(long)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			h := &hoarder{r: tc.r}
			s, err := vault.SecretFromReader(h, tc.max)
			is.True(len(h.bufs) > 2) // it grew
			if err == nil {
				s.Destroy()
			}
			for _, b := range h.bufs {
				is.Equal(bytes.Trim(b, "\x00"), nil)
			}
		})
	}
}

// What must never be seen of this value in any rendering.
const canary = "lin_api_test_canary_7f3a"

func shows(text string) bool {
	b := []byte(canary)
	lower := strings.ToLower(text)
	for i := 0; i+6 <= len(b); i++ {
		part := b[i : i+6]
		decimal := strings.Trim(fmt.Sprint(part), "[]")
		source := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}")
		if strings.Contains(text, string(part)) || strings.Contains(lower, fmt.Sprintf("%x", part)) ||
			strings.Contains(text, decimal) || strings.Contains(text, source) ||
			strings.Contains(text, strings.ReplaceAll(decimal, " ", ",")) {
			return true
		}
	}
	return strings.Contains(text, "bGluX2FwaV90ZXN0") // the canary in base64
}

type embedding struct{ *vault.Secret }

type embeddingValue struct{ vault.Secret }

type holder struct {
	Name   string
	Field  *vault.Secret
	Value  vault.Secret
	hidden *vault.Secret
	inner  vault.Secret
}

func TestRedaction(t *testing.T) {
	t.Parallel()
	s := secret(canary)
	bytesOfKey := []byte(canary + "12345678")
	k, err := keyOf(bytesOfKey, dataKeyID(bytesOfKey, vault.PurposeSeal), vault.PurposeSeal)
	if err != nil {
		t.Fatal(err)
	}
	h := holder{"bot", s, *s, s, *s}
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%e", "%t", "%10s", "%-50v", "% x", "%#x", "%!"}
	for name, tc := range map[string]struct {
		v       any
		whole   bool // prints as [redacted] and nothing else
		visible bool // shows [redacted] somewhere
	}{
		"pointer":                 {s, true, true},
		"value":                   {*s, true, true},
		"pointer to pointer":      {&s, false, false},
		"embedding":               {embedding{s}, true, true},
		"embedding value":         {embeddingValue{*s}, true, true},
		"holder":                  {h, false, true},
		"pointer to holder":       {&h, false, true},
		"slice":                   {[]*vault.Secret{s}, false, true},
		"slice of values":         {[]vault.Secret{*s}, false, true},
		"map":                     {map[string]any{"a": s, "b": *s}, false, true},
		"hidden only":             {struct{ a any }{s}, false, false},
		"hidden value":            {struct{ a vault.Secret }{*s}, false, false},
		"data key":                {k, true, true},
		"data key value":          {struct{ K *vault.DataKey }{k}, false, true},
		"hidden data key":         {struct{ k *vault.DataKey }{k}, false, false},
		"sealer":                  {newSealer(t, k), true, true},
		"opener":                  {newOpener(t, k), true, true},
		"hidden sealer":           {struct{ s *vault.Sealer }{newSealer(t, k)}, false, false},
		"error":                   {fmt.Errorf("bad value %v: %w", s, io.EOF), false, true},
		"error with #v of holder": {fmt.Errorf("bad value %#v", h), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, verb := range verbs {
				got := fmt.Sprintf(verb, tc.v)
				if shows(got) {
					t.Errorf("%s shows the secret", verb)
				}
				if tc.whole && verb != "%!" && got != "[redacted]" {
					t.Errorf("%s gave %q", verb, got)
				}
				if tc.visible && (verb == "%v" || verb == "%#v") && !strings.Contains(got, "[redacted]") {
					t.Errorf("%s gave %q", verb, got)
				}
			}
			if got := fmt.Sprint(tc.v) + fmt.Sprintln(tc.v); shows(got) {
				t.Error("Sprint shows the secret")
			}
		})
	}
}

func TestRedactionInEncodings(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := secret(canary)
	h := holder{"bot", s, *s, s, *s}

	b, err := json.Marshal(h)
	is.NoErr(err)
	is.Equal(string(b), `{"Name":"bot","Field":"[redacted]","Value":"[redacted]"}`)
	b, err = json.Marshal(map[string]any{"s": s})
	is.NoErr(err)
	is.Equal(string(b), `{"s":"[redacted]"}`)
	b, err = s.MarshalJSON()
	is.NoErr(err)
	is.Equal(string(b), `"[redacted]"`)
	b, err = s.MarshalText()
	is.NoErr(err)
	is.Equal(string(b), "[redacted]")
	b, err = xml.Marshal(h)
	is.NoErr(err)
	is.True(!shows(string(b)))
	is.True(strings.Contains(string(b), "[redacted]"))

	var out bytes.Buffer
	is.True(gob.NewEncoder(&out).Encode(s) != nil)
	is.True(gob.NewEncoder(&out).Encode(h) != nil)
	is.True(!shows(out.String()))
	_, err = s.MarshalBinary()
	is.True(err != nil)
}

func TestRedactionInLogs(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := secret(canary)
	h := holder{"bot", s, *s, s, *s}
	// For handlers that look at the value themselves.
	is.Equal(slog.AnyValue(s).Resolve().String(), "[redacted]")
	is.Equal(slog.AnyValue(*s).Resolve().Kind(), slog.KindString)
	is.Equal(s.String()+s.GoString(), "[redacted][redacted]")
	for _, handler := range []func(io.Writer) slog.Handler{
		func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
		func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		var out bytes.Buffer
		log := slog.New(handler(&out))
		log.Info("pointer", "s", s)
		log.Info("value", "s", *s)
		log.Info("holder", "h", h, "p", &h, slog.Group("g", "s", s))
		log.With("s", s).Error("error", "err", fmt.Errorf("%#v", h))
		log.Info("nil", "s", (*vault.Secret)(nil))
		is.Equal(strings.Count(out.String(), "\n"), 5)
		is.True(!shows(out.String()))
		is.True(strings.Contains(out.String(), "[redacted]"))
	}
}

func TestRedactionInPanics(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := secret(canary)
	defer func() {
		got := fmt.Sprintf("%v %+v %#v", recover(), s, *s)
		is.True(!shows(got))
		is.Equal(got, "[redacted] [redacted] [redacted]")
	}()
	panic(s)
}
