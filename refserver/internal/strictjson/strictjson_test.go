package strictjson_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/strictjson"
)

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text, problem string
		offset              int
	}{
		{"empty", "", "the text ends too early", 0},
		{"blank", " \n", "the text ends too early", 2},
		{"byte order mark", "\ufeff{}", "no value", 0},
		{"word", "nope", "no value", 0},
		{"half a word", "nul", "no value", 0},
		{"garbage after", "{} x", "something follows the value", 3},
		{"two values", "{}{}", "something follows the value", 2},
		{"NUL after", "{}\x00", "something follows the value", 2},
		{"no brace", `{"a":1`, "no comma or closing brace", 6},
		{"comma too many", `{"a":1,}`, "no member name", 7},
		{"comma in array", `[1,]`, "no value", 3},
		{"no bracket", `[1`, "no comma or closing bracket", 2},
		{"no colon", `{"a" 1}`, "no colon", 5},
		{"bare name", `{a:1}`, "no member name", 1},
		{"single quotes", `{'a':1}`, "no member name", 1},
		{"twice", `{"a":1,"a":2}`, "a member name occurs twice", 7},
		{"twice by escape", `{"a":1,"\u0061":2}`, "a member name occurs twice", 7},
		{"twice inside", `{"o":{"a":1,"a":1}}`, "a member name occurs twice", 12},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", "invalid UTF-8", 6},
		{"UTF-8 surrogate", "{\"a\":\"\xed\xa0\x80\"}", "invalid UTF-8", 6},
		{"overlong", "{\"a\":\"\xc0\x80\"}", "invalid UTF-8", 6},
		{"lone high", `"\ud800"`, "half of a surrogate pair", 1},
		{"lone low", `"\udc00"`, "half of a surrogate pair", 1},
		{"high and high", `"\ud800\ud800"`, "half of a surrogate pair", 1},
		{"high and text", `"\ud800abcdefgh"`, "half of a surrogate pair", 1},
		{"control", "\"a\nb\"", "a control character in a string", 2},
		{"escape", `"\x41"`, "an unknown escape", 1},
		{"short escape", `"\u12"`, "an unknown escape", 1},
		{"escape at the end", `"\`, "an unknown escape", 1},
		{"open string", `"abc`, "a string without end", 4},
		{"leading zero", `01`, "something follows the value", 1},
		{"plus", `+1`, "no value", 0},
		{"minus alone", `-`, "a malformed number", 1},
		{"point alone", `1.`, "a malformed number", 2},
		{"exponent alone", `1e+`, "a malformed number", 3},
		{"NaN", `NaN`, "no value", 0},
		{"comment", `{} // x`, "something follows the value", 3},
		{"too deep", strings.Repeat("[", strictjson.MaxDepth+2) + strings.Repeat("]", strictjson.MaxDepth+2), "nesting is too deep", strictjson.MaxDepth + 1},
		{"very deep", strings.Repeat("[", 1<<20), "nesting is too deep", strictjson.MaxDepth + 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			_, err := strictjson.Parse([]byte(tt.text))
			var syntax *strictjson.SyntaxError
			is.True(errors.As(err, &syntax)) // refused
			is.Equal(syntax.Problem, tt.problem)
			is.Equal(syntax.Offset, tt.offset)
		})
	}
}

func TestParseReads(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	v, err := strictjson.Parse([]byte(` {"s":"a\"\\\/\b\f\n\r\té\ud83d\ude00é😀","n":-12,"x":1.5,"big":9007199254740993,"z":null,"b":true,"l":[1,"two",[]]} `))
	is.NoErr(err)
	is.Equal(v.Kind(), strictjson.Object)
	is.Equal(v.Names(), []string{"s", "n", "x", "big", "z", "b", "l"})
	is.Equal(string(v.Member("s").AppendText(nil)), "a\"\\/\b\f\n\r\té😀é😀")
	n, ok := v.Member("n").Int()
	is.True(ok)
	is.Equal(n, int64(-12))
	for _, name := range []string{"x", "big", "s", "none"} {
		_, ok := v.Member(name).Int()
		is.True(!ok) // no integer that everybody carries exactly
	}
	is.Equal(v.Member("z").Kind(), strictjson.Null)
	is.Equal(v.Member("b").Kind(), strictjson.Bool)
	is.Equal(v.Member("none").Kind(), strictjson.Absent)
	is.Equal(len(v.Member("l").Items()), 3)
	is.Equal(v.Member("l").Items()[1].Kind(), strictjson.String)
}

func TestAppendTextNeverMoves(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	v, err := strictjson.Parse([]byte(`"tab\t, quote\", \u20ac, \ud83d\ude00, plain €"`))
	is.NoErr(err)
	dst := make([]byte, 0, v.Size())
	got := v.AppendText(dst)
	is.Equal(string(got), "tab\t, quote\", €, 😀, plain €")
	is.Equal(&got[0], &dst[:1][0]) // decoded in place: no other copy was made
}

// FuzzParse compares with encoding/json: what Parse accepts, encoding/json reads
// as the same value; what it refuses beyond that, it refuses for a reason that
// encoding/json does not know.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[1,2,{"b":null}]}`, `"\ud83d\ude00"`, `{"a":1,"a":2}`, "\"\xff\"", `-0.5e+3`, `[[[]]]`, `"\u0000"`, ` 1 `} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := strictjson.Parse(text)
		if err != nil {
			if strings.Contains(err.Error(), string(text)) && len(text) > 12 {
				t.Fatal("the error repeats the text")
			}
			if json.Valid(text) && utf8.Valid(text) && !strictOnly(err) {
				t.Fatalf("refused what JSON allows: %v", err)
			}
			return
		}
		var want any
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.UseNumber()
		if err := d.Decode(&want); err != nil {
			t.Fatalf("accepted what is no JSON: %v", err)
		}
		if got := build(v); !reflect.DeepEqual(got, want) {
			t.Fatalf("read %#v, encoding/json reads %#v", got, want)
		}
	})
}

// strictOnly reports whether the reason is one that only this package knows.
func strictOnly(err error) bool {
	var s *strictjson.SyntaxError
	return errors.As(err, &s) &&
		(s.Problem == "a member name occurs twice" || s.Problem == "half of a surrogate pair" || s.Problem == "nesting is too deep")
}

func build(v strictjson.Value) any {
	switch v.Kind() {
	case strictjson.Object:
		m := map[string]any{}
		for _, name := range v.Names() {
			m[name] = build(v.Member(name))
		}
		return m
	case strictjson.Array:
		l := []any{}
		for _, item := range v.Items() {
			l = append(l, build(item))
		}
		return l
	case strictjson.String:
		return string(v.AppendText(nil))
	case strictjson.Number:
		return json.Number(v.Literal())
	case strictjson.Bool:
		return v.Literal() == "true"
	}
	return nil
}
