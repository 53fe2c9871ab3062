package exchange

// Bytes are the bytes that the object is built in, all that there is room for.
func (o *ObjectWriter) Bytes() []byte { return o.b[:cap(o.b)] }

// TraceID and Printable are what is recorded of headers.
var (
	TraceID   = trace
	Printable = printable
)
