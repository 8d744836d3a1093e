package kmip

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gemalto/kmip-go/kmip14"
	ovh "github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/payloads"
	ovhttlv "github.com/ovh/kmip-go/ttlv"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

// The known-answer messages are the test cases of the OASIS KMIP profiles (Symmetric Key
// Lifecycle, of the profiles' versions 1.0 to 1.4) and of the KMIP test cases for 1.2, in XML as
// OASIS publishes the cases. The test reads them from the module cache, where
// github.com/ovh/kmip-go has a copy; the encoder of that module makes the bytes.

// An exchange is a request with the answer, in bytes.
type exchange struct {
	request ovh.RequestMessage
	sent    []byte
	answer  []byte
}

func TestKnownAnswers(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/ovh/kmip-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "kmiptest", "testdata")
	for _, c := range []struct {
		pattern  string
		requests int // number of requests sent by our client too, over all files
	}{
		{"v1.0/SKLC*.xml", 20}, {"v1.1/SKLC*.xml", 20}, {"v1.3/SKLC*.xml", 20}, {"v1.4/SKLC*.xml", 20},
		{"v1.2/TC_311*.xml", 1}, {"v1.2/TC_313*.xml", 2}, {"v1.2/TC_41*.xml", 2},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			t.Parallel()
			files, err := filepath.Glob(filepath.Join(root, c.pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("no test cases: %v", err)
			}
			n := 0
			for _, file := range files {
				for i, e := range readCases(t, file) {
					if replay(t, fmt.Sprintf("%s, message %d", filepath.Base(file), i+1), e) {
						n++
					}
				}
			}
			if n < c.requests {
				t.Errorf("%d requests compared, want at least %d", n, c.requests)
			}
		})
	}
}

var (
	now   = regexp.MustCompile(`"\$NOW((-|\+)\d+)?"`)
	named = regexp.MustCompile(`"\$[A-Za-z0-9_]+"`)
)

// readCases reads a file's messages with the variables filled in.
func readCases(t *testing.T, file string) (all []exchange) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = now.ReplaceAll(text, []byte(`"2026-11-24T20:00:00+00:00"`))
	text = named.ReplaceAll(text, []byte(`"1"`)) // digits, as PyKMIP's identifiers
	decoder := xml.NewDecoder(bytes.NewReader(text))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); !ok || start.Name.Local != "KMIP" {
			continue
		}
		messages, err := ovhttlv.NewXMLFromDecoder(decoder)
		if err != nil {
			t.Fatal(err)
		}
		for messages.Tag() == ovh.TagRequestMessage {
			var e exchange
			var answer ovh.ResponseMessage
			if err := messages.TagAny(ovh.TagRequestMessage, &e.request); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if err := messages.TagAny(ovh.TagResponseMessage, &answer); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			e.sent, e.answer = ovhttlv.MarshalTTLV(&e.request), ovhttlv.MarshalTTLV(&answer)
			all = append(all, e)
		}
		return all
	}
}

// replay makes our client send a request of the test case: the bytes must equal the known ones,
// and the client must understand the known answer. replay reports whether our client sends such a
// request.
func replay(t *testing.T, name string, e exchange) bool {
	t.Helper()
	if len(e.request.BatchItem) != 1 {
		return false
	}
	do := performer(t, e.request.BatchItem[0].RequestPayload)
	if do == nil {
		return false
	}
	client, server := tlsPipe(t)
	sent := make(chan []byte, 1)
	go func() {
		frame, err := wire.ReadFrame(server, kmip14.TagRequestMessage)
		if err == nil {
			_, _ = server.Write(e.answer)
		}
		sent <- frame
	}()
	version := e.request.Header.ProtocolVersion
	s := newSession(client, &Config{}, "", nil)
	s.version = wire.Version{Major: version.ProtocolVersionMajor, Minor: version.ProtocolVersionMinor}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := do(ctx, s)
	if got := withoutBatchID(<-sent); !bytes.Equal(got, e.sent) {
		t.Errorf("%s: sent\n%x, want\n%x", name, got, e.sent)
	}
	if r, ok := errors.AsType[*result](err); err != nil && !ok {
		t.Errorf("%s: answer not understood: %v", name, err)
	} else if failed := bytes.Contains(e.answer, []byte{0x42, 0, 0x7e, 5}); failed != ok {
		t.Errorf("%s: result %v, want a failure: %v", name, r, failed)
	}
	return true
}

// performer returns our client's function for sending a payload; nil if the client never sends a
// similar one.
func performer(t *testing.T, payload ovh.OperationPayload) func(context.Context, *session) error {
	switch p := payload.(type) {
	case *payloads.CreateRequestPayload:
		attributes := sameAttributes(p.TemplateAttribute.Attribute)
		if attributes == nil {
			return nil
		}
		return func(ctx context.Context, s *session) error {
			id, err := s.create(ctx, attributes)
			if err == nil && id != "1" {
				t.Errorf("created key %q", id)
			}
			return err
		}
	case *payloads.ActivateRequestPayload:
		return func(ctx context.Context, s *session) error { return s.activate(ctx, p.UniqueIdentifier) }
	case *payloads.DestroyRequestPayload:
		return func(ctx context.Context, s *session) error { return s.destroy(ctx, p.UniqueIdentifier) }
	case *payloads.RevokeRequestPayload:
		if p.CompromiseOccurrenceDate != nil || p.RevocationReason.RevocationMessage != "" {
			return nil
		}
		return func(ctx context.Context, s *session) error {
			return s.revoke(ctx, p.UniqueIdentifier, kmip14.RevocationReasonCode(p.RevocationReason.RevocationReasonCode))
		}
	case *payloads.GetAttributesRequestPayload:
		return func(ctx context.Context, s *session) error {
			var names []string
			for _, n := range p.AttributeName {
				names = append(names, string(n))
			}
			a, err := s.getAttributes(ctx, p.UniqueIdentifier, names...)
			if err == nil && a.state == keys.StateUnknown {
				t.Error("no state in the answer")
			}
			return err
		}
	}
	return nil
}

// sameAttributes converts the attributes of a Create to ours; nil if our client never sends one
// of them.
func sameAttributes(list []ovh.Attribute) (same []wire.Attribute) {
	for _, a := range list {
		switch v := a.AttributeValue.(type) {
		case ovh.CryptographicAlgorithm:
			same = append(same, wire.Attribute{Name: string(a.AttributeName), Value: kmip14.CryptographicAlgorithm(v)})
		case ovh.CryptographicUsageMask:
			same = append(same, wire.Attribute{Name: string(a.AttributeName), Value: kmip14.CryptographicUsageMask(v)})
		case int32:
			same = append(same, wire.Attribute{Name: string(a.AttributeName), Value: v})
		case ovh.Name:
			same = append(same, wire.NameAttribute(v.NameValue))
		default:
			return nil
		}
	}
	return same
}

// withoutBatchID removes the Unique Batch Item ID, absent from the test cases, from a request
// with one item.
func withoutBatchID(frame []byte) []byte {
	at := bytes.Index(frame, []byte{0x42, 0, 0x93, 8, 0, 0, 0, 8})
	item := bytes.Index(frame, []byte{0x42, 0, 0x0f, 1})
	if at < 0 || item < 0 {
		return frame
	}
	for _, length := range []int{4, item + 4} {
		binary.BigEndian.PutUint32(frame[length:], binary.BigEndian.Uint32(frame[length:])-16)
	}
	return append(frame[:at:at], frame[at+16:]...)
}

// tlsPipe is a TLS connection within this process.
func tlsPipe(t *testing.T) (client, server *tls.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	client = tls.Client(a, &tls.Config{InsecureSkipVerify: true})
	server = tls.Server(b, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	t.Cleanup(func() { a.Close(); b.Close() })
	return client, server
}
