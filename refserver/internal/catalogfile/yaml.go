package catalogfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Bounds of what aliases may make of a document.
const (
	maxExpanded = 1 << 20 // bytes of the JSON that it comes to
	maxDepth    = 16      // a document has three levels
)

// asJSON turns YAML into JSON that means the same by the core schema of YAML 1.2.
// What the schema has no room for is refused: several documents, tags, keys that
// are not text or occur twice. Merge keys are keys like any other.
func asJSON(text []byte) ([]byte, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	if err := d.Decode(&first); err != nil {
		return nil, notYAML(err)
	}
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, &SyntaxError{"YAML", "there must be one document, and nothing after it"}
	}
	c := converter{}
	c.value(first.Content[0], 0)
	if c.problem != "" {
		return nil, &SyntaxError{"YAML", c.problem}
	}
	return c.out.Bytes(), nil
}

var lineOf = regexp.MustCompile(`\bline ([0-9]+)`)

// notYAML keeps the line of a parser's error and drops its text, which may quote
// the document.
func notYAML(err error) error {
	if errors.Is(err, io.EOF) {
		return &SyntaxError{"YAML", "it is empty"}
	}
	if at := lineOf.FindStringSubmatch(err.Error()); at != nil {
		return &SyntaxError{"YAML", "it can't be read from about line " + at[1] + " on"}
	}
	return &SyntaxError{"YAML", "it can't be read"}
}

// converter writes nodes as JSON. After the first problem it does nothing.
type converter struct {
	out     bytes.Buffer
	problem string
}

func (c *converter) fail(n *yaml.Node, problem string) {
	if c.problem == "" {
		c.problem = problem + " at line " + strconv.Itoa(n.Line)
	}
}

func (c *converter) value(n *yaml.Node, depth int) {
	switch {
	case depth > maxDepth:
		c.fail(n, "nesting is too deep")
	case c.out.Len() > maxExpanded:
		c.fail(n, "aliases make it longer than "+strconv.Itoa(maxExpanded)+" bytes")
	}
	if c.problem != "" {
		return
	}
	if n.Style&yaml.TaggedStyle != 0 && n.Tag != "!!str" {
		c.fail(n, "a tag")
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		c.mapping(n, depth)
	case yaml.SequenceNode:
		c.out.WriteByte('[')
		for i, item := range n.Content {
			c.comma(i)
			c.value(item, depth+1)
		}
		c.out.WriteByte(']')
	case yaml.AliasNode:
		c.value(n.Alias, depth+1)
	case yaml.ScalarNode:
		c.scalar(n)
	default:
		c.fail(n, "something unknown")
	}
}

func (c *converter) comma(i int) {
	if i > 0 {
		c.out.WriteByte(',')
	}
}

func (c *converter) mapping(n *yaml.Node, depth int) {
	seen := make(map[string]bool, len(n.Content)/2)
	c.out.WriteByte('{')
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode:
			c.fail(key, "a key that is not text")
		case seen[key.Value]:
			c.fail(key, "a key occurs twice")
		}
		if c.problem != "" {
			return
		}
		seen[key.Value] = true
		c.comma(i)
		c.text(key.Value)
		c.out.WriteByte(':')
		c.value(n.Content[i+1], depth+1)
	}
	c.out.WriteByte('}')
}

func (c *converter) text(s string) {
	b, _ := json.Marshal(s) // text always encodes
	c.out.Write(b)
}

const quotedStyles = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle | yaml.TaggedStyle

var (
	decimal = regexp.MustCompile(`^[-+]?[0-9]+$`)
	number  = regexp.MustCompile(`^(0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
)

// scalar resolves a plain scalar by the core schema; every other one is text.
func (c *converter) scalar(n *yaml.Node) {
	if n.Style&quotedStyles != 0 {
		c.text(n.Value)
		return
	}
	switch n.Value {
	case "", "~", "null", "Null", "NULL":
		c.out.WriteString("null")
	case "true", "True", "TRUE":
		c.out.WriteString("true")
	case "false", "False", "FALSE":
		c.out.WriteString("false")
	default:
		switch {
		case decimal.MatchString(n.Value):
			c.integer(n.Value)
		case number.MatchString(n.Value):
			c.out.WriteString("0.5") // no field takes one, so any that is not whole will do
		default:
			c.text(n.Value)
		}
	}
}

func (c *converter) integer(s string) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		c.out.WriteString("0.5") // too great for every field
		return
	}
	c.out.WriteString(strconv.FormatInt(n, 10))
}
