package agentkey

// NormalWords and ASCIIHost are what identities are made of.
var (
	NormalWords = normalWords
	ASCIIHost   = asciiHost
)

