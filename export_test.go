package agentkey

// NormalWords and ASCIIHost are what identities are made of.
var (
	NormalWords = normalWords
	ASCIIHost   = asciiHost
)

// ConversionPage is how many requests one transaction opens for supporters.
const ConversionPage = conversionPage
