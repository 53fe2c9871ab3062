package audit

import "crypto/sha256"

// MaxPersonal is the greatest length of an encoded personal part, in bytes.
const MaxPersonal = 64 << 10

// Personal is the part of an event that may concern a person: labels as they were at that time, addresses, free text. It is
// stored beside the event and can be erased alone; the event keeps only its hash.
//
// The salt is inside, not in the event: once the part is erased the salt is gone too, so that the hash that stays in the log
// can't be matched against guesses of a name or an address. That is also why each part needs a salt of its own.
type Personal struct {
	Salt       []byte            // 16 random bytes of NewSalt, used for this part only; required
	ActorLabel string            // up to 1024 bytes, as are the other labels and the user agent
	AgentLabel string            //
	ToolLabel  string            //
	Address    string            // the client's address, up to 128 bytes
	UserAgent  string            //
	Text       string            // free text, such as a reason; up to 16 KiB
	Extra      map[string]string // further personal facts, at most 32; keys as in Details, values up to 16 KiB
}

// IsZero reports whether p says nothing; the salt does not count. A part that says nothing is not stored.
func (p Personal) IsZero() bool {
	return p.ActorLabel == "" && p.AgentLabel == "" && p.ToolLabel == "" && p.Address == "" && p.UserAgent == "" &&
		p.Text == "" && len(p.Extra) == 0
}

// Encode returns the exact bytes of p, canonical JSON of at most MaxPersonal bytes, or ErrInvalid naming the field.
func (p Personal) Encode() ([]byte, error) { return encode(256, MaxPersonal, p.members) }

// ParsePersonal returns the personal part whose exact bytes encoded is. Anything else is ErrFormat.
func ParsePersonal(encoded []byte) (Personal, error) {
	var p Personal
	if err := decode(encoded, MaxPersonal, p.members); err != nil {
		return Personal{}, err
	}
	return p, nil
}

// members is the format of the personal part, version 1; it can never change.
func (p *Personal) members(c *codec) {
	version := int64(Version)
	c.text("actor_label", &p.ActorLabel, labelRule)
	c.text("address", &p.Address, addressRule)
	c.text("agent_label", &p.AgentLabel, labelRule)
	c.mapping("extra", &p.Extra, freeTextRule)
	c.octets("salt", &p.Salt, saltSize, true)
	c.text("text", &p.Text, freeTextRule)
	c.text("tool_label", &p.ToolLabel, labelRule)
	c.text("user_agent", &p.UserAgent, labelRule)
	c.integer("version", &version)
	if version != Version {
		c.fail("version", "is not 1")
	}
}

// HashPersonal returns what an event holds of its personal part: SHA-256 over a label and the part's exact bytes.
func HashPersonal(encoded []byte) []byte {
	h := sha256.New()
	h.Write([]byte("agentkey/personal/v1\n"))
	h.Write(encoded)
	return h.Sum(nil)
}
