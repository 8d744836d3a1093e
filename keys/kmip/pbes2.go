package kmip

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"hash"
	"unsafe"
)

// Errors of decryptKey.
var (
	errKeyScheme   = errors.New("it is encrypted in a way that is not read (expected PBES2 with PBKDF2 and AES-CBC)")
	errKeyPassword = errors.New("its password is wrong")
)

// mostIterations bounds the work demanded by a file: half a second or so.
const mostIterations = 1_000_000

// encryptedKey is EncryptedPrivateKeyInfo (RFC 5958 §3) under PBES2 (RFC 8018 A.4).
type encryptedKey struct {
	Scheme struct {
		ID     asn1.ObjectIdentifier
		Params struct{ KDF, Cipher pkix.AlgorithmIdentifier }
	}
	Data []byte
}

// pbkdf2Params is PBKDF2-params (RFC 8018 A.2).
type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	Length     int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// decryptKey decrypts an encrypted PKCS#8 key, as made by openssl, and returns the DER; the
// caller wipes the DER.
func decryptKey(der, password []byte) ([]byte, error) {
	var key encryptedKey
	if rest, err := asn1.Unmarshal(der, &key); err != nil || len(rest) > 0 || key.Scheme.ID.String() != "1.2.840.113549.1.5.13" {
		return nil, errKeyScheme
	}
	size := map[string]int{"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32}[key.Scheme.Params.Cipher.Algorithm.String()]
	var iv []byte
	if _, err := asn1.Unmarshal(key.Scheme.Params.Cipher.Parameters.FullBytes, &iv); err != nil || size == 0 || len(iv) != aes.BlockSize {
		return nil, errKeyScheme
	}
	derived, err := deriveKey(key.Scheme.Params.KDF, password, size)
	if err != nil {
		return nil, err
	}
	defer clear(derived)
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	if n := len(key.Data); n == 0 || n%aes.BlockSize > 0 {
		return nil, errKeyScheme
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(key.Data, key.Data)
	// Wrong padding reveals a wrong password, except for one password in 256: then the key does
	// not parse.
	pad := int(key.Data[len(key.Data)-1])
	if pad < 1 || pad > aes.BlockSize || !bytes.Equal(key.Data[len(key.Data)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		clear(key.Data)
		return nil, errKeyPassword
	}
	return key.Data[:len(key.Data)-pad], nil
}

// deriveKey makes the key of a password by PBKDF2.
func deriveKey(kdf pkix.AlgorithmIdentifier, password []byte, size int) ([]byte, error) {
	var params pbkdf2Params
	_, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &params)
	if err != nil || kdf.Algorithm.String() != "1.2.840.113549.1.5.12" || params.Iterations < 1 || params.Iterations > mostIterations {
		return nil, errKeyScheme
	}
	prf := map[string]func() hash.Hash{
		"": sha1.New, "1.2.840.113549.2.7": sha1.New, "1.2.840.113549.2.9": sha256.New,
		"1.2.840.113549.2.10": sha512.New384, "1.2.840.113549.2.11": sha512.New,
	}[params.PRF.Algorithm.String()]
	if prf == nil {
		return nil, errKeyScheme
	}
	// No copy: nobody could wipe a string.
	text := unsafe.String(unsafe.SliceData(password), len(password))
	return pbkdf2.Key(prf, text, params.Salt, params.Iterations, size)
}
