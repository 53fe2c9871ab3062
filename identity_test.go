package agentkey_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/matryer/is"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	agentkey "github.com/agentkey-dev/agentkey-go"
)

func TestNormalWords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Linear":                           "linear",
		"  Linear -- App!  ":               "linear app",
		"LINEAR_APP":                       "linear app",
		"ＬＩＮＥＡＲ":                           "linear", // full width
		"Straße 7":                         "strasse 7",
		"STRASSE 7":                        "strasse 7",
		"Cafe\u0301":                       "café",
		"Café":                             "café",
		"ﬁle²":                             "file2",
		"Ελληνικός":                        "ελληνικόσ",
		"Яндекс Трекер":                    "яндекс трекер",
		"飛書":                               "飛書",
		"フィード":                             "フィード",
		"ﾌｨｰﾄﾞ":                            "フィード", // half width
		"हिन्दी":                           "हिन्दी",
		"C++":                              "c",
		"👍👍":                               "",
		"-- ! --":                          "",
		"\u0301\u0301":                     "", // marks on nothing
		"1\ufe0f\u20e3":                    "1",
		"lin\u200bear\u00ad":               "linear",
		"a\u0301- b":                       "á b",
		"\u3164\u115f":                     "", // fillers
		"x" + strings.Repeat("\u200d", 20): "x",
	} {
		if got := agentkey.NormalWords(text); got != want {
			t.Errorf("%+q: got %+q, want %+q", text, got, want)
		}
	}
}

// What is normal stays as it is, and neither case nor Unicode form nor what is
// around the words makes a difference.
func TestNormalWordsProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		checkNormal(t, rapid.String().Draw(t, "text"))
	})
}

func FuzzNormalWords(f *testing.F) {
	for _, s := range []string{"Linear", "ﷺ", "İı", "\u0345Α\u0345", "\u1e9e", "ǰ\u0323", "Ω\u0301", "ﾞ", "가\u11a7", "\U000e0100"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 2000 {
			t.Skip()
		}
		checkNormal(t, strings.ToValidUTF8(s, ""))
	})
}

func checkNormal(t interface {
	Helper()
	Fatalf(format string, args ...any)
}, text string) {
	t.Helper()
	words := agentkey.NormalWords(text)
	for _, same := range []string{words, norm.NFD.String(text), norm.NFC.String(text), norm.NFKC.String(text), "- " + text + " -"} {
		if got := agentkey.NormalWords(same); got != words {
			t.Fatalf("%+q: %+q, but %+q: %+q", text, words, same, got)
		}
	}
	if strings.ContainsAny(words, "|~#/") || words != strings.TrimSpace(words) || strings.Contains(words, "  ") {
		t.Fatalf("%+q: %+q", text, words)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < 0x80 && unicode.IsLetter(r) }) && words == "" {
		t.Fatalf("%+q has letters", text)
	}
}

// A host comes out as the standard library dials it.
func TestASCIIHost(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var dialed string
	errDialed := errors.New("not dialed")
	transport := &http.Transport{DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		dialed = address
		return nil, errDialed
	}}
	for host, want := range map[string]string{
		"münchen.de":         "xn--mnchen-3ya.de",
		"MÜNCHEN.de":         "xn--mnchen-3ya.de",
		"mu\u0308nchen.de":   "xn--mnchen-3ya.de",
		"xn--mnchen-3ya.de":  "xn--mnchen-3ya.de",
		"XN--MNCHEN-3YA.DE":  "xn--mnchen-3ya.de",
		"例え.テスト":             "xn--r8jz45g.xn--zckzah",
		"例え。テスト":             "xn--r8jz45g.xn--zckzah",
		"點看.example":         "xn--c1yn36f.example",
		"правда.example":     "xn--80aafi6cg.example",
		"ドメイン名例.example":     "xn--eckwd4c7cu47r2wf.example",
		"faß.de":             "xn--fa-hia.de",
		"ｅｘａｍｐｌｅ.com":        "example.com",
		"api.bücher.example": "api.xn--bcher-kva.example",
	} {
		got, err := agentkey.ASCIIHost(host)
		is.NoErr(err)
		is.Equal(got, want)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+":80/", nil)
		is.NoErr(err)
		res, err := transport.RoundTrip(r)
		if res != nil {
			_ = res.Body.Close()
		}
		is.True(errors.Is(err, errDialed))
		is.Equal(strings.ToLower(dialed), want+":80")
	}
	for _, bad := range []string{"a b\u00a0ü.de", "\u0301a.de", "ü\u2028.de"} {
		_, err := agentkey.ASCIIHost(bad)
		is.True(err != nil)
	}
}
