package main

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// A gate stands before the development KMS. The gate lets through the operations that a client may
// use, and answers Permission Denied to all others.
type gate struct {
	dir string // of the development KMS

	mu      sync.Mutex // guards the fields below
	allowed []string
	asked   map[string]bool
}

// operations are the KMIP operations that vmcryptfs may ask for, by code (KMIP 1.4 §9.1.3.2.27).
var gateOperations = map[uint32]string{1: "Create", 3: "Register", 4: "Re-key", 8: "Locate", 10: "Get",
	11: "Get-Attributes", 18: "Activate", 19: "Revoke", 20: "Destroy", 24: "Query", 30: "Discover-Versions"}

type gateKey struct{}

// cmdGate: gate FILE starts a gate and writes a kms.toml for the gate.
func cmdGate(ts *testscript.TestScript, neg bool, args []string) {
	g := &gate{dir: ts.MkAbs("devkms"), asked: map[string]bool{}}
	pair, err := tls.LoadX509KeyPair(g.dir+"/server.pem", g.dir+"/server.key")
	ts.Check(err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	ts.Check(err)
	upstream, err := os.ReadFile(g.dir + "/kms.toml")
	ts.Check(err)
	_, rest, _ := strings.Cut(string(upstream), `["`)
	address, _, _ := strings.Cut(rest, `"`)
	ts.Defer(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go g.serve(conn, address)
		}
	}()
	text := fmt.Sprintf("[provider.dev]\nservers = [%q]\nca = \"%[2]s/ca.pem\"\ncert = \"%[2]s/client.pem\"\nkey = \"%[2]s/client.key\"\nversion = \"1.4\"\ntimeout = \"30s\"\n",
		listener.Addr(), g.dir)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
	ts.Setenv("GATE", filepath.Join(ts.MkAbs("."), args[0]))
	*ts.Value(gateKey{}).(**gate) = g
}

// cmdAllow: allow OPERATION… lets only the given operations through, and forgets the earlier
// requests.
func cmdAllow(ts *testscript.TestScript, neg bool, args []string) {
	g := *ts.Value(gateKey{}).(**gate)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.allowed, g.asked = args, map[string]bool{}
}

// cmdAsked: asked OPERATION…: exactly the given operations were asked for since allow.
func cmdAsked(ts *testscript.TestScript, neg bool, args []string) {
	g := *ts.Value(gateKey{}).(**gate)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range args {
		if !g.asked[name] {
			ts.Fatalf("%s was not asked", name)
		}
	}
	for name := range g.asked {
		if !slices.Contains(args, name) {
			ts.Fatalf("%s was asked", name)
		}
	}
}

// serve passes requests on until either side ends.
func (g *gate) serve(client net.Conn, address string) {
	defer client.Close()
	pair, err := tls.LoadX509KeyPair(g.dir+"/client.pem", g.dir+"/client.key")
	if err != nil {
		return
	}
	server, err := tls.Dial("tcp", address, &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer server.Close()
	for {
		request, err := readFrame(client)
		if err != nil {
			return
		}
		answer := g.deny(request)
		if answer == nil {
			if _, err := server.Write(request); err != nil {
				return
			}
			if answer, err = readFrame(server); err != nil {
				return
			}
		}
		if _, err := client.Write(answer); err != nil {
			return
		}
	}
}

// readFrame reads one message of KMIP.
func readFrame(from io.Reader) ([]byte, error) {
	frame := make([]byte, 8)
	if _, err := io.ReadFull(from, frame); err != nil {
		return nil, err
	}
	frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame[4:]))...)
	_, err := io.ReadFull(from, frame[8:])
	return frame, err
}

// deny is the refusal of a request, nil for a permitted one.
func (g *gate) deny(request []byte) []byte {
	var code uint32
	for at := 0; at+12 <= len(request); at += 8 {
		if binary.BigEndian.Uint32(request[at:]) == 0x42005c05 {
			code = binary.BigEndian.Uint32(request[at+8:])
			break
		}
	}
	name := gateOperations[code]
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked[name] = true
	if slices.Contains(g.allowed, name) {
		return nil
	}
	const structure, integer, enumeration = 1, 2, 5
	number := func(tag, kind, value uint32) []byte {
		return item(tag, kind, binary.BigEndian.AppendUint32(nil, value))
	}
	version := request[16:56] // in the header, the first part of the request
	return item(0x42007b, structure, slices.Concat(
		item(0x42007a, structure, slices.Concat(version, number(0x42000d, integer, 1))),
		item(0x42000f, structure, slices.Concat(number(0x42005c, enumeration, code),
			number(0x42007f, enumeration, 1), number(0x42007e, enumeration, 12))))) // Operation Failed, Permission Denied
}

// item is one TTLV item.
func item(tag, kind uint32, value []byte) []byte {
	head := binary.BigEndian.AppendUint32(nil, tag<<8|kind)
	head = binary.BigEndian.AppendUint32(head, uint32(len(value)))
	return append(append(head, value...), make([]byte, (8-len(value)%8)%8)...)
}
