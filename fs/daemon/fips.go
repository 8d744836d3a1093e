package daemon

import (
	"crypto/fips140"

	"vmcryptfs/advice"
)

// CheckFIPS returns an error under GODEBUG=fips140=only. Under that setting the program cannot
// run: docs/security.md names the reasons.
func CheckFIPS() error {
	if !fips140.Enforced() {
		return nil
	}
	return advice.Usagef("GODEBUG=fips140=only is set, and not all cryptography here is of Go's FIPS 140-3 module: " +
		"XTS-AES of data is this program's own code, and AES-GCM wraps keys of files under random nonces of its own; " +
		"unset it, or set fips140=on, with which TLS, HMAC, HKDF, AES-GCM and random numbers are the module's (docs/security.md)")
}
