package agentkey

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-playground/validator/v10"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// validation checks every input struct by its tags. Messages name fields and
// rules and never repeat a value.
type validation struct{ v *validator.Validate }

func newValidation() (*validation, error) {
	v := validator.New(validator.WithRequiredStructEnabled())
	v.RegisterTagNameFunc(func(f reflect.StructField) string {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			return name
		}
		return f.Name
	})
	for tag, ok := range map[string]func(s, param string) bool{
		"id":       func(s, _ string) bool { return isID(s) },
		"key":      func(s, _ string) bool { return isConfigKey(s) },
		"code":     func(s, _ string) bool { return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" },
		"plain":    func(s, _ string) bool { return isPlain(s) },
		"text":     func(s, _ string) bool { return isText(s) },
		"utf16min": func(s, p string) bool { return utf16Len(s) >= atoi(p) },
		"utf16max": func(s, p string) bool { return utf16Len(s) <= atoi(p) },
	} {
		err := v.RegisterValidation(tag, func(fl validator.FieldLevel) bool {
			return ok(fl.Field().String(), fl.Param())
		})
		if err != nil {
			return nil, fmt.Errorf("agentkey: validation: %w", err)
		}
	}
	return &validation{v}, nil
}

// ruled is an input with rules that no tag can say.
type ruled interface {
	// problems lists what breaks them, as far as the fields that they look at hold
	// by themselves.
	problems() []FieldError
}

// input trims the strings of the struct that in points to and checks it. All that
// is wrong is listed at once.
func (v *validation) input(in any) error {
	trim(reflect.ValueOf(in).Elem())
	err := v.check(in)
	r, ok := in.(ruled)
	var bad *ValidationError
	if !ok || err != nil && !errors.As(err, &bad) {
		return err
	}
	if bad == nil {
		bad = &ValidationError{}
	}
	bad.Fields = merge(bad.Fields, r.problems())
	if len(bad.Fields) == 0 {
		return nil
	}
	return bad
}

// CheckInput lists everything wrong with an input that could be told without
// looking at records: in points to one of the input structs of this package, whose
// texts are trimmed. The Manager does the same before it decides; a host calls it
// to tell its user about these errors together with its own.
//
// The error is a *ValidationError.
func (m *Manager) CheckInput(in any) error { return m.validation.input(in) }

// fieldsOf are the fields that the errors complain about, each once.
func fieldsOf(errs ...error) (fields []FieldError) {
	for _, err := range errs {
		var bad *ValidationError
		if errors.As(err, &bad) {
			fields = merge(fields, bad.Fields)
		}
	}
	return fields
}

// merge adds to fields those that are not among them.
func merge(fields, more []FieldError) []FieldError {
	for _, f := range more {
		if !slices.ContainsFunc(fields, func(known FieldError) bool { return known.Field == f.Field }) {
			fields = append(fields, f)
		}
	}
	return fields
}

// termsProblems checks each of the limits of a grant by itself, under the names
// that an input has for them.
func termsProblems(t Terms, duration, vends string) []FieldError {
	names := map[string]string{"duration": duration, "max_vends": vends, "scopes": "scopes"}
	var fields []FieldError
	for _, one := range []Terms{{Duration: t.Duration}, {MaxVends: t.MaxVends}, {Scopes: t.Scopes}} {
		for _, f := range fieldsOf(grantError(one.Validate())) {
			fields = append(fields, FieldError{Field: names[f.Field], Message: f.Message})
		}
	}
	return fields
}

func (v *validation) check(in any) error {
	err := v.v.Struct(in)
	if err == nil {
		return nil
	}
	found, ok := err.(validator.ValidationErrors)
	if !ok {
		return fmt.Errorf("agentkey: validation: %T", err)
	}
	bad := &ValidationError{}
	for _, f := range found {
		_, field, nested := strings.Cut(f.Namespace(), ".")
		if !nested { // of a struct without a name
			field = f.Namespace()
		}
		bad.Fields = append(bad.Fields, FieldError{Field: strings.TrimPrefix(field, "DecisionInput."), Message: complaint(f.Tag(), f.Param(), f.Kind())})
	}
	return bad
}

func complaint(tag, param string, kind reflect.Kind) string {
	switch tag {
	case "required":
		return "is required"
	case "utf16min":
		return "must have at least " + param + " characters"
	case "utf16max":
		return "must have at most " + param + " characters"
	case "min":
		return "must be at least " + param
	case "max":
		switch kind {
		case reflect.String:
			return "must have at most " + param + " characters"
		case reflect.Slice, reflect.Map:
			return "must have at most " + param + " entries"
		}
		return "must be at most " + param
	case "oneof":
		return "must be one of " + strings.ReplaceAll(param, " ", ", ")
	case "cidr":
		return "must be an address range such as 192.0.2.0/24"
	case "id":
		return "must be an id: printable characters without spaces"
	case "key":
		return "must be lower-case letters and digits, in parts joined by single hyphens"
	case "plain":
		return "must not hold control characters or characters that change the direction of text"
	case "text":
		return "must be valid UTF-8 without control characters"
	}
	return "is not valid"
}

// trim trims every string of a struct, as the contract wants before lengths count.
func trim(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if v.CanSet() {
			v.SetString(strings.TrimSpace(v.String()))
		}
	case reflect.Pointer:
		if !v.IsNil() && v.Type() != reflect.TypeFor[*Secret]() && v.Type() != reflect.TypeFor[*time.Time]() {
			// A string behind a pointer is the caller's: trim a copy of it.
			n := reflect.New(v.Type().Elem())
			n.Elem().Set(v.Elem())
			trim(n.Elem())
			v.Set(n)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				trim(f)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.String && v.Len() > 0 {
			n := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(n, v)
			for i := range n.Len() {
				trim(n.Index(i))
			}
			v.Set(n)
		}
	}
}

// checkTexts refuses what no record can hold, before storage is asked for it.
func checkTexts(values ...string) error {
	if storage.CheckText(values...) != nil {
		return invalid("input", "must be valid UTF-8 without NUL")
	}
	return nil
}

// checkEnd refuses an end that would be stored as none, or not at all.
func checkEnd(field string, t time.Time) error {
	if !t.IsZero() && (t.Unix() <= 0 || t.Year() > 9999) {
		return invalid(field, "must be a time after 1970 and before the year 10000")
	}
	return nil
}

func utf16Len(s string) int { return len(utf16.Encode([]rune(s))) }

func atoi(s string) (n int) {
	for _, r := range s {
		n = n*10 + int(r-'0')
	}
	return n
}

func isID(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// isConfigKey says whether s could be the key of a tool.
func isConfigKey(s string) bool {
	for part := range strings.SplitSeq(s, "-") {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return false
		}
	}
	return true
}

// isPlain says whether s shows as what it is: one line, nothing invisible that
// reorders it.
func isPlain(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
	}) < 0
}

// isText allows lines and tabs besides.
func isText(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t'
	}) < 0
}

// normalURL makes an absolute http or https URL of a URL or a bare host name, in
// the form of the URL standard (WHATWG); empty stays empty.
func normalURL(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	bad := invalid("url", "must be an http or https URL or a host name")
	lower := strings.ToLower(s)
	switch {
	case strings.HasPrefix(lower, "http://"), strings.HasPrefix(lower, "https://"):
	case strings.Contains(s, ":"), strings.Contains(s, "//"), strings.ContainsAny(s, " \\@"):
		if !hostWithPort(s) {
			return "", bad
		}
		s = "https://" + s
	default:
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || !isHost(u.Hostname()) {
		return "", bad
	}
	host, err := asciiHost(u.Hostname())
	if err != nil {
		return "", bad
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]" // an IPv6 address
	}
	if text := u.Port(); text != "" {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return "", bad
		}
		if usual := map[string]uint64{"http": 80, "https": 443}; port != usual[u.Scheme] {
			host += ":" + strconv.FormatUint(port, 10)
		}
	}
	u.Host, u.RawQuery = host, escapeQuery(u.RawQuery)
	if u.Path == "" {
		u.Path = "/"
	}
	return new(url.URL).ResolveReference(u).String(), nil // without . and .. in its path
}

// escapeQuery is a query as the URL standard (WHATWG) writes it.
func escapeQuery(query string) string {
	var b strings.Builder
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c > '~' || strings.IndexByte(`"'<>`, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// hostWithPort tells example.com:8443/x, which has no scheme, from mailto:x.
func hostWithPort(s string) bool {
	host, rest, found := strings.Cut(s, ":")
	port, _, _ := strings.Cut(rest, "/")
	return found && isHost(host) && port != "" && strings.Trim(port, "0123456789") == "" && !strings.ContainsAny(rest, " \\@")
}

func isHost(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(`/\?#@<>"'%^|{}`+"`", r)
	}) < 0
}
