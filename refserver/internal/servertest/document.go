package servertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/agentkey-dev/agentkey-go/refserver/openapi"
)

// Document is the server's OpenAPI document, made strict: in what the server
// answers a property that it does not name is wrong. It is safe for concurrent
// use.
type Document struct {
	doc        *openapi3.T
	everywhere []string // headers of every response
	crossSite  []string // headers for web pages of allowed origins

	mu    sync.Mutex
	right map[string]bool // bodies that were found right, by schema and text
}

// LoadDocument reads and validates the document that the server serves. It is
// read once.
func LoadDocument() (*Document, error) { return load() }

var load = sync.OnceValues(func() (*Document, error) {
	var tree map[string]any
	if err := json.Unmarshal(openapi.Document(), &tree); err != nil {
		return nil, err
	}
	if err := closeObjects(tree); err != nil {
		return nil, err
	}
	strict, err := json.Marshal(tree)
	if err != nil {
		return nil, err
	}
	loader := openapi3.NewLoader()
	d := &Document{right: make(map[string]bool)}
	if d.doc, err = loader.LoadFromData(strict); err != nil {
		return nil, err
	}
	if err := d.doc.Validate(loader.Context); err != nil {
		return nil, err
	}
	d.everywhere = texts(tree["x-headers-on-every-response"])
	d.crossSite = texts(tree["x-headers-for-allowed-origins"])
	return d, nil
})

func texts(list any) (out []string) {
	all, _ := list.([]any)
	for _, item := range all {
		out = append(out, item.(string))
	}
	return out
}

// closeObjects lets no object have properties that it does not name, unless it
// says that it may. Composed objects can't be closed one by one, so the document
// has none.
func closeObjects(node any) error {
	switch node := node.(type) {
	case map[string]any:
		if _, found := node["allOf"]; found {
			return errors.New("the document composes a schema with allOf: name its properties in one place")
		}
		_, named := node["properties"].(map[string]any)
		_, says := node["additionalProperties"]
		if named && !says {
			node["additionalProperties"] = false
		}
		for _, child := range node {
			if err := closeObjects(child); err != nil {
				return err
			}
		}
	case []any:
		for _, child := range node {
			if err := closeObjects(child); err != nil {
				return err
			}
		}
	}
	return nil
}

// Routes are the document's routes: by path, the methods, sorted. HEAD comes
// with GET unless the operation says x-no-head, and OPTIONS with every agents'
// path.
func (d *Document) Routes() map[string][]string {
	all := make(map[string][]string)
	for path, item := range d.doc.Paths.Map() {
		var methods []string
		agents := false
		for method, op := range item.Operations() {
			methods = append(methods, method)
			if method == http.MethodGet && op.Extensions["x-no-head"] != true {
				methods = append(methods, http.MethodHead)
			}
			agents = agents || slices.Contains(op.Tags, "agent")
		}
		if agents && len(d.crossSite) > 0 {
			methods = append(methods, http.MethodOptions)
		}
		slices.Sort(methods)
		all[path] = methods
	}
	return all
}

// Exchange is a request and its response, both whole.
type Exchange struct {
	Method   string
	URL      *url.URL
	Request  []byte
	Type     string // the request's content type
	Status   int
	Header   http.Header
	Response []byte
}

// Check returns what of an exchange is not as the document says; nil when all is.
// Its errors hold no value of either body.
func (d *Document) Check(x Exchange) error {
	for _, name := range d.everywhere {
		if x.Header.Get(name) == "" {
			return fmt.Errorf("no header %s", name)
		}
	}
	path, item := d.find(x.URL.EscapedPath())
	if strings.HasPrefix(x.URL.Path, "/api/") && !strings.HasPrefix(x.Header.Get("Cache-Control"), "no-store") {
		return errors.New("a response under /api may be kept")
	}
	if item == nil {
		return d.checkUnknown(x)
	}
	methods := d.Routes()[path]
	op := item.GetOperation(x.Method)
	switch {
	case !slices.Contains(methods, x.Method):
		if allow := x.Header.Get("Allow"); x.Status == http.StatusMethodNotAllowed && allow != strings.Join(methods, ", ") {
			return fmt.Errorf("header Allow is %q, and not %q", allow, strings.Join(methods, ", "))
		}
		return d.checkError(x, http.StatusMethodNotAllowed)
	case x.Method == http.MethodOptions && op == nil:
		if len(x.Response) > 0 || x.Status != http.StatusNoContent && x.Status != http.StatusForbidden {
			return fmt.Errorf("OPTIONS is answered with status %d and %d bytes", x.Status, len(x.Response))
		}
		return d.checkHeaders(x, nil)
	case x.Method == http.MethodHead:
		op = item.Get
	}
	if x.Status == http.StatusForbidden && op.Responses.Status(x.Status) == nil {
		return d.checkError(x, http.StatusForbidden) // it came past the proxy
	}
	response := op.Responses.Status(x.Status)
	if response == nil {
		return fmt.Errorf("status %d is not documented", x.Status)
	}
	if x.Status < 300 {
		if err := d.checkRequest(x, item, op); err != nil {
			return err
		}
	}
	return d.checkResponse(x, response.Value)
}

// find finds the path item of a path: that with the fewest names in braces.
func (d *Document) find(path string) (found string, item *openapi3.PathItem) {
	segments := strings.Split(path, "/")
	best := len(segments) + 1
	for template, candidate := range d.doc.Paths.Map() {
		parts := strings.Split(template, "/")
		if len(parts) != len(segments) {
			continue
		}
		names := 0
		for i, part := range parts {
			switch {
			case strings.HasPrefix(part, "{") && segments[i] != "":
				names++
			case part != segments[i]:
				names = len(segments) + 1
			}
		}
		if names < best {
			best, found, item = names, template, candidate
		}
	}
	return found, item
}

// checkUnknown checks the answer to a path that the document does not have.
func (d *Document) checkUnknown(x Exchange) error {
	if x.Status != http.StatusPermanentRedirect {
		return d.checkError(x, http.StatusNotFound, http.StatusForbidden)
	}
	if _, item := d.find(strings.TrimSuffix(x.URL.EscapedPath(), "/")); item == nil || len(x.Response) > 0 {
		return errors.New("a path is redirected that is no route with a slash")
	}
	return d.checkHeaders(x, []string{"Location"})
}

// checkError checks an error that no operation has: one of the router's.
func (d *Document) checkError(x Exchange, statuses ...int) error {
	if !slices.Contains(statuses, x.Status) {
		return fmt.Errorf("%s is not documented, and answered with status %d", x.Method, x.Status)
	}
	generic := *d.doc.Components.Responses["NotFound"].Value
	if x.Status == http.StatusMethodNotAllowed {
		generic = *d.doc.Components.Responses["MethodNotAllowed"].Value
	}
	return d.checkResponse(x, &generic)
}

func (d *Document) checkResponse(x Exchange, r *openapi3.Response) error {
	var named []string
	for name, header := range r.Headers {
		named = append(named, http.CanonicalHeaderKey(name))
		value := x.Header.Get(name)
		if value == "" {
			if header.Value.Required {
				return fmt.Errorf("no header %s", name)
			}
			continue
		}
		if err := d.checkText(header.Value.Schema, value); err != nil {
			return fmt.Errorf("header %s: %w", name, err)
		}
	}
	if err := d.checkHeaders(x, named); err != nil {
		return err
	}
	if x.Method == http.MethodHead {
		return nil // net/http sends no body, whatever the handler wrote
	}
	if len(r.Content) == 0 {
		if len(x.Response) > 0 {
			return errors.New("there is a body, and the document has none")
		}
		return nil
	}
	media, _, err := mime.ParseMediaType(x.Header.Get("Content-Type"))
	if err != nil || r.Content[media] == nil {
		return fmt.Errorf("content type %q is not documented", media)
	}
	if media != "application/json" && !strings.HasSuffix(media, "+json") {
		return nil
	}
	return d.checkBody(r.Content[media].Schema, x.Response, false)
}

// checkHeaders looks for headers that nothing names.
func (d *Document) checkHeaders(x Exchange, named []string) error {
	for name := range x.Header {
		switch {
		case name == "Content-Type", name == "Content-Length", name == "Date", name == "Cache-Control":
		case slices.Contains(d.everywhere, name), slices.Contains(d.crossSite, name), slices.Contains(named, name):
		default:
			return fmt.Errorf("header %s is not documented", name)
		}
	}
	return nil
}

// checkRequest checks what the server accepted.
func (d *Document) checkRequest(x Exchange, item *openapi3.PathItem, op *openapi3.Operation) error {
	query := x.URL.Query()
	for _, p := range append(slices.Clone(item.Parameters), op.Parameters...) {
		if p.Value.In != openapi3.ParameterInQuery || !query.Has(p.Value.Name) {
			continue
		}
		if err := d.checkText(p.Value.Schema, query.Get(p.Value.Name)); err != nil {
			return fmt.Errorf("parameter %s: %w", p.Value.Name, err)
		}
	}
	if op.RequestBody == nil {
		return nil
	}
	body := op.RequestBody.Value
	if len(x.Request) == 0 {
		if body.Required {
			return errors.New("accepted without the body that the document requires")
		}
		return nil
	}
	sent, _, _ := mime.ParseMediaType(x.Type)
	for media, content := range body.Content {
		if len(body.Content) > 1 && media != sent {
			continue
		}
		if strings.HasSuffix(media, "json") {
			if err := d.checkBody(content.Schema, x.Request, true); err != nil {
				return fmt.Errorf("the request's body: %w", err)
			}
		}
	}
	return nil
}

// checkText checks a header's or parameter's text: as a number where it is one.
func (d *Document) checkText(schema *openapi3.SchemaRef, text string) error {
	if schema == nil {
		return nil
	}
	var value any = text
	if t := schema.Value.Type; t != nil && t.Includes(openapi3.TypeInteger) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return errors.New("is no whole number")
		}
		value = float64(n)
	}
	return explain(schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020()))
}

// checkBody checks a JSON body. What tests repeat is checked once.
func (d *Document) checkBody(schema *openapi3.SchemaRef, text []byte, request bool) error {
	if schema == nil {
		return nil
	}
	key := fmt.Sprintf("%p %t %s", schema.Value, request, text)
	d.mu.Lock()
	known := d.right[key]
	d.mu.Unlock()
	if known {
		return nil
	}
	var value any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil || decoder.More() {
		return errors.New("is not one JSON value")
	}
	if request {
		value = counted(value)
	}
	if err := explain(schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020(), openapi3.MultiErrors())); err != nil {
		return err
	}
	d.mu.Lock()
	d.right[key] = true
	d.mu.Unlock()
	return nil
}

// counted makes texts of a request as long for JSON Schema, which counts
// characters, as they are for the API, which removes white space at both ends
// and counts UTF-16 units.
func counted(value any) any {
	switch v := value.(type) {
	case string:
		var b strings.Builder
		for _, r := range strings.TrimFunc(v, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' }) {
			if r > 0xffff {
				b.WriteRune('x')
				r = 'x'
			}
			b.WriteRune(r)
		}
		return b.String()
	case map[string]any:
		for name, member := range v {
			v[name] = counted(member)
		}
	case []any:
		for i, item := range v {
			v[i] = counted(item)
		}
	}
	return value
}

// explain says where a value breaks its schema, and by which keyword, without
// the value.
func explain(err error) error {
	if err == nil {
		return nil
	}
	var all openapi3.MultiError
	if errors.As(err, &all) && len(all) > 0 {
		var out []error
		for _, e := range all {
			out = append(out, explain(e))
		}
		return errors.Join(out...)
	}
	var broken *openapi3.SchemaError
	if errors.As(err, &broken) {
		if inner := (openapi3.MultiError)(nil); errors.As(broken.Origin, &inner) {
			return explain(inner)
		}
		return fmt.Errorf("/%s breaks %q of its schema", strings.Join(broken.JSONPointer(), "/"), broken.SchemaField)
	}
	return fmt.Errorf("breaks its schema (%T)", err)
}
