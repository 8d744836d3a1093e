package kmip_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ovh "github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/kmipserver"
	"github.com/ovh/kmip-go/ttlv"

	"vmcryptfs/integration/mounttest"
)

// A foreign is a server over a vault. The switches may be thrown at any time.
type foreign struct {
	address string
	vault   *vault

	lags     atomic.Bool   // has no key yet, as a slow replica
	denies   atomic.Bool   // Get
	givesAll atomic.Bool   // destroyed keys are handed out
	mute     atomic.Bool   // Get Attributes is refused
	noCustom atomic.Bool   // custom attributes are refused
	wrapOnly atomic.Bool   // keys are for wrapping only
	drops    atomic.Bool   // no key is made
	refuses  atomic.Uint32 // why Get is refused; 0: Get is served
	clone    atomic.Uint32 // the refused operation
	nameless atomic.Bool   // the Name of a new key is passed over
	listsAll atomic.Bool   // the Name in Locate is passed over
	unique   atomic.Uint32 // why a taken Name is refused; 0: not refused
	noRekey  atomic.Bool   // Re-key is not offered
	deaf     atomic.Bool   // connections are accepted and left alone
	trouble  atomic.Pointer[trouble]
	accepted atomic.Int32           // connections
	asked    atomic.Int32           // requests for attributes
	gotLen   atomic.Int32           // length of the last answer to Get
	lastLen  atomic.Int32           // and of the last answer
	client   atomic.Pointer[string] // the name in the last client's certificate
	username atomic.Pointer[string] // and the credential, "user:password"

	stop     func() // idempotent; waits
	listener net.Listener
	ended    chan struct{} // closed with the server: hanging answers end
	mu       sync.Mutex    // guards the fields below
	conns    []net.Conn
	limit    int            // of connections; 0: none
	beyond   func(net.Conn) // called with a connection beyond the limit
	serving  int            // sessions now
	most     int            // and at the same time at most
}

// A trouble spoils the answers to one operation: spoil writes other bytes than frame, and the
// connection continues when spoil returns nil.
type trouble struct {
	on    ovh.Operation
	spoil func(f *foreign, conn net.Conn, frame []byte) error
}

var errSpoilt = errors.New("the test ends this connection")

func newForeign(t testing.TB, p *pki, v *vault) *foreign {
	t.Helper()
	f := &foreign{vault: v}
	f.start(t, p, mounttest.FreeAddress(t))
	return f
}

// start listens; after stop, start may be called again at the same address.
func (f *foreign) start(t testing.TB, p *pki, address string) {
	t.Helper()
	f.startAs(t, p, address, leaf{})
}

// startAs is start with a certificate to choose.
func (f *foreign) startAs(t testing.TB, p *pki, address string, l leaf) {
	t.Helper()
	cert, key := p.issue(t, "foreign", l)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(p.cert)
	if f.listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	f.address = f.listener.Addr().String()
	f.ended = make(chan struct{})
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	var running sync.WaitGroup
	listener, ended, exec := f.listener, f.ended, f.operations()
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.accepted.Add(1)
			f.mu.Lock()
			f.conns = append(f.conns, conn)
			f.mu.Unlock()
			select {
			case <-ended: // stop may have been at the connections already
				conn.Close()
				return
			default:
			}
			if !f.deaf.Load() && f.admits(conn) {
				running.Go(func() { f.serve(&spoiltConn{tls.Server(conn, config), f}, exec) })
			}
		}
	})
	var once sync.Once
	f.stop = func() {
		once.Do(func() {
			close(ended)
			listener.Close()
			f.mu.Lock()
			for _, conn := range f.conns {
				conn.Close()
			}
			f.conns = nil
			f.mu.Unlock()
			running.Wait()
		})
	}
	t.Cleanup(f.stop)
}

// admits counts a connection, or passes one too many to beyond.
func (f *foreign) admits(conn net.Conn) bool {
	f.mu.Lock()
	full := f.limit > 0 && f.serving >= f.limit
	beyond := f.beyond
	f.mu.Unlock()
	if full {
		beyond(conn)
		return false
	}
	f.count(1)
	return true
}

// count counts sessions.
func (f *foreign) count(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.serving += n
	f.most = max(f.most, f.serving)
}

// serve is the loop of kmipserver.Server without the goroutines there, which race when a
// connection ends during an answer.
func (f *foreign) serve(conn *spoiltConn, exec *kmipserver.BatchExecutor) {
	defer conn.Close()
	defer f.count(-1)
	if conn.Conn.(*tls.Conn).Handshake() != nil {
		return
	}
	f.client.Store(&conn.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName)
	stream := ttlv.NewStream(conn, 1<<20)
	for {
		var request ovh.RequestMessage
		if stream.Recv(&request) != nil {
			return
		}
		if a := request.Header.Authentication; a != nil && a.Credential.CredentialValue.UserPassword != nil {
			pair := a.Credential.CredentialValue.UserPassword
			credential := pair.Username + ":" + pair.Password
			f.username.Store(&credential)
		}
		if stream.Send(exec.HandleRequest(context.Background(), &request)) != nil {
			return
		}
	}
}

// spoiltConn sees each answer as one Write.
type spoiltConn struct {
	net.Conn
	f *foreign
}

func (c *spoiltConn) Write(frame []byte) (int, error) {
	c.f.lastLen.Store(int32(len(frame)))
	if operation(frame) == ovh.OperationGet {
		c.f.gotLen.Store(int32(len(frame)))
	}
	if trouble := c.f.trouble.Load(); trouble != nil && operation(frame) == trouble.on {
		if err := trouble.spoil(c.f, c.Conn, frame); err != nil {
			c.Close()
			return 0, err
		}
		return len(frame), nil
	}
	return c.Conn.Write(frame)
}

// operation returns an answer's operation: the first Operation item in the frame.
func operation(frame []byte) ovh.Operation {
	for at := 0; at+12 <= len(frame); at += 8 {
		if binary.BigEndian.Uint32(frame[at:]) == 0x42005c05 {
			return ovh.Operation(binary.BigEndian.Uint32(frame[at+8:]))
		}
	}
	return 0
}

// The ways to spoil an answer.

// hangs writes nothing until the server ends.
func hangs(f *foreign, _ net.Conn, _ []byte) error {
	<-f.ended
	return errSpoilt
}

// hangsMidway writes half and nothing more.
func hangsMidway(f *foreign, conn net.Conn, frame []byte) error {
	_, _ = conn.Write(frame[:len(frame)/2])
	<-f.ended
	return errSpoilt
}

// closesEarly writes half and closes.
func closesEarly(_ *foreign, conn net.Conn, frame []byte) error {
	_, _ = conn.Write(frame[:len(frame)/2])
	return errSpoilt
}

// closesAtOnce does the operation and closes without a word.
func closesAtOnce(*foreign, net.Conn, []byte) error { return errSpoilt }

// answersAfter returns a spoiler that only takes its time.
func answersAfter(d time.Duration) func(*foreign, net.Conn, []byte) error {
	return func(f *foreign, conn net.Conn, frame []byte) error {
		select {
		case <-time.After(d):
		case <-f.ended:
			return errSpoilt
		}
		_, err := conn.Write(frame)
		return err
	}
}

// writes returns a spoiler that writes other bytes.
func writes(change func(frame []byte) []byte) func(*foreign, net.Conn, []byte) error {
	return func(_ *foreign, conn net.Conn, frame []byte) error {
		_, err := conn.Write(change(append([]byte{}, frame...)))
		return err
	}
}

// garbage is as long as the answer and no TTLV.
func garbage(frame []byte) []byte {
	for i := range frame {
		frame[i] = byte(i*7 + 1)
	}
	return frame
}

// garbageWithin keeps the outermost header.
func garbageWithin(frame []byte) []byte {
	garbage(frame[8:])
	return frame
}

// huge announces nearly 4 GiB.
func huge(frame []byte) []byte {
	binary.BigEndian.PutUint32(frame[4:], 0xfffffff8)
	return frame
}

// hugeWithin has an item longer than the message.
func hugeWithin(frame []byte) []byte {
	binary.BigEndian.PutUint32(frame[12:], 0x7ffffff8)
	return frame
}

// deep is 20,000 structures in structures.
func deep([]byte) []byte {
	const levels = 20000
	frame := make([]byte, 0, 8*levels)
	for i := range levels {
		tag := []byte{0x42, 0x00, 0x7b, 0x01}
		if i > 0 {
			tag[2] = 0x0f
		}
		frame = binary.BigEndian.AppendUint32(append(frame, tag...), uint32(8*(levels-1-i)))
	}
	return frame
}

// oddType has an item of an invalid type.
func oddType(frame []byte) []byte {
	frame[11] = 0x7f
	return frame
}

// otherOperation answers with another operation than requested.
func otherOperation(frame []byte) []byte {
	for at := 0; at+12 <= len(frame); at += 8 {
		if binary.BigEndian.Uint32(frame[at:]) == 0x42005c05 {
			binary.BigEndian.PutUint32(frame[at+8:], uint32(ovh.OperationMAC))
		}
	}
	return frame
}

// otherRequest has another batch item identifier.
func otherRequest(frame []byte) []byte {
	for at := 0; at+16 <= len(frame); at += 8 {
		if binary.BigEndian.Uint32(frame[at:]) == 0x42009308 {
			frame[at+8] ^= 1
		}
	}
	return frame
}

// otherKey has another Unique Identifier.
func otherKey(frame []byte) []byte {
	for at := 0; at+16 <= len(frame); at += 8 {
		if binary.BigEndian.Uint32(frame[at:]) == 0x42009407 {
			frame[at+8] ^= 1
		}
	}
	return frame
}
