package kmip

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Files of certificates, keys and passwords come from editors and tools of every kind. A file
// that cannot be parsed as a whole is an error: a certificate skipped silently would be missed
// only on the day of its need.

// readText reads a text file and removes a leading byte order mark. The caller may wipe the text.
func readText(path string) ([]byte, error) {
	text, err := ReadText(path)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) || bytes.IndexByte(text[:min(len(text), 64)], 0) >= 0 && !isDER(text) {
		clear(text)
		return nil, errors.New("it is UTF-16, as some editors save it: save it as UTF-8 or plain text")
	}
	return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), nil
}

// isDER reports whether text begins as binary certificates and keys do: with a SEQUENCE of 128
// bytes or more.
func isDER(text []byte) bool { return len(text) > 4 && text[0] == 0x30 && text[1]&0xf0 == 0x80 }

// readPassword is the first line of a file.
func readPassword(path string) ([]byte, error) {
	text, err := readText(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	first, _, _ := bytes.Cut(text, []byte("\n"))
	return bytes.Clone(bytes.TrimSuffix(first, []byte("\r"))), nil
}

// readCertificates reads the certificates in a PEM file, at least one.
func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := readText(path)
	if err != nil {
		return nil, err
	}
	blocks, err := pemBlocks(text, "openssl x509 -inform DER -in "+path+" -out NEW")
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for i, block := range blocks {
		switch {
		case block.Type == "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("block %d: %w", i+1, err)
			}
			certs = append(certs, cert)
		case !strings.HasSuffix(block.Type, "PRIVATE KEY") && !strings.HasSuffix(block.Type, "PARAMETERS"):
			return nil, fmt.Errorf("block %d is a %s, which is not read: expected CERTIFICATE (openssl x509 -in %s prints one so)", i+1, block.Type, path)
		}
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in it: expected PEM")
	}
	return certs, nil
}

// pemBlocks returns all blocks of a text. An unreadable block is an error; convert is the command
// that makes PEM of DER.
func pemBlocks(text []byte, convert string) (blocks []*pem.Block, err error) {
	if isDER(text) {
		return nil, fmt.Errorf("it is DER, and PEM is expected: convert it with %s", convert)
	}
	begun := bytes.Count(text, []byte("-----BEGIN "))
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	if len(blocks) < begun {
		return nil, fmt.Errorf("%d blocks begin in it and %d can be read: one is cut off, damaged, or does not begin its line", begun, len(blocks))
	}
	return blocks, nil
}

// readPair reads a certificate and the key; an error names the wrong one of the two.
func (c *Config) readPair() (pair tls.Certificate, err error) {
	certs, err := readCertificates(c.Cert)
	if err != nil {
		return pair, fmt.Errorf("client certificate %s: %w", c.Cert, err)
	}
	keyPEM, err := c.readKey()
	if err != nil {
		return pair, fmt.Errorf("client key %s: %w", c.Key, err)
	}
	defer clear(keyPEM)
	var chain []byte
	for _, cert := range certs {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	if pair, err = tls.X509KeyPair(chain, keyPEM); err != nil {
		// The error of the tls package quotes nothing of the key.
		err = fmt.Errorf("client key %s with certificate %s: %w", c.Key, c.Cert, err)
		if len(certs) > 1 {
			err = fmt.Errorf("%w (this host's own certificate must be the first in its file)", err)
		}
		return tls.Certificate{}, err
	}
	return pair, nil
}

// readKey reads the client's private key as PEM, decrypted. The caller wipes the key.
func (c *Config) readKey() ([]byte, error) {
	text, err := readText(c.Key)
	if err != nil {
		return nil, err
	}
	blocks, err := pemBlocks(text, "openssl pkey -inform DER -in "+c.Key+" -out NEW")
	if err != nil {
		clear(text)
		return nil, err
	}
	i := slices.IndexFunc(blocks, func(b *pem.Block) bool { return strings.HasSuffix(b.Type, "PRIVATE KEY") })
	if i < 0 || blocks[i].Type != "ENCRYPTED PRIVATE KEY" && blocks[i].Headers["DEK-Info"] == "" {
		return text, nil
	}
	clear(text)
	const modern = "convert it with openssl pkcs8 -topk8 -v2 aes-256-cbc -in %s -out NEW"
	switch {
	case c.KeyPassword == "":
		return nil, fmt.Errorf("it is encrypted: name the file of its password as key_password_file in kms.toml, or decrypt it with openssl pkey -in %s -out NEW", c.Key)
	case blocks[i].Type != "ENCRYPTED PRIVATE KEY":
		return nil, fmt.Errorf("it is encrypted in the old way of PEM, by MD5, which is not read: "+modern, c.Key)
	}
	password, err := readPassword(c.KeyPassword)
	if err != nil {
		return nil, fmt.Errorf("its password file: %w", err)
	}
	defer clear(password)
	der, err := decryptKey(blocks[i].Bytes, password)
	if errors.Is(err, errKeyScheme) {
		return nil, fmt.Errorf("%w: "+modern, err, c.Key)
	}
	if err != nil {
		return nil, fmt.Errorf("%w (its password is the first line of %s)", err, c.KeyPassword)
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
