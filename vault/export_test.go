package vault

// OpenGCM opens ciphertext and tag with the primitive that Opener.Open calls, for
// test vectors that bring their own keys, nonces and associated data.
func OpenGCM(key, nonce, ciphertextAndTag, associated []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return open(aead, append(append([]byte{}, nonce...), ciphertextAndTag...), associated)
}
