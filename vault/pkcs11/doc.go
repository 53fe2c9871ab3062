// Package pkcs11 is a vault.KeyProvider over a key in a hardware security module,
// or whatever else speaks PKCS#11. The key is made in the token and never leaves it.
// The package needs cgo; without it, it is empty.
//
// A data key is encrypted in the token by CKM_AES_GCM, together with a proof of its
// context, which is bound as additional data too. Both are checked when it is
// unwrapped: the one by the token, the other here.
//
// The keys of a provider are all AES keys of one label in one token. One of them
// wraps, all unwrap; they are told apart by CKA_ID, and by the check value where the
// token has one, which is also what the provider's ids of them hold:
//
//	pkcs11:01:9f2c4e
//
// Keys must have 256 bits, be sensitive and not extractable. To change keys, make a
// new one of the same label with another CKA_ID and name that.
package pkcs11
