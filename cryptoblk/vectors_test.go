package cryptoblk

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
)

// vector is one data unit of a standard's test vectors.
type vector struct {
	count  int
	bits   int // DataUnitLen
	key    []byte
	tweak  tweak
	pt, ct []byte
}

// loadVectors reads a file in the form of NIST's CAVP response files.
func loadVectors(t *testing.T, path string) []vector {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []vector
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, found := strings.Cut(lines.Text(), " = ")
		if !found || strings.HasPrefix(name, "#") {
			continue
		}
		if name == "COUNT" {
			all = append(all, vector{count: mustInt(t, value)})
			continue
		}
		v := &all[len(all)-1]
		switch name {
		case "DataUnitLen":
			v.bits = mustInt(t, value)
		case "Key":
			v.key = mustHex(t, value)
		case "i":
			i := mustHex(t, value)
			v.tweak = tweak{binary.LittleEndian.Uint64(i), binary.LittleEndian.Uint64(i[8:])}
		case "PT":
			v.pt = mustHex(t, value)
		case "CT":
			v.ct = mustHex(t, value)
		default:
			t.Fatalf("%s: unknown field %q", path, name)
		}
	}
	return all
}

func mustInt(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStandardVectors(t *testing.T) {
	t.Parallel()
	files := []struct {
		path string
		want int // vectors of whole blocks in the file
	}{
		{"testdata/ieee1619-annex-b.rsp", 5},
		{"testdata/XTSGenAES256.rsp", 600},
	}
	for _, file := range files {
		var whole []vector
		for _, v := range loadVectors(t, file.path) {
			if v.bits%(8*blockSize) == 0 {
				whole = append(whole, v)
			}
		}
		if len(whole) != file.want {
			t.Fatalf("%s: %d vectors of whole blocks, want %d", file.path, len(whole), file.want)
		}
		everywhere(t, func(t *testing.T, impl implementation) {
			for _, v := range whole {
				checkVector(t, impl, file.path, v)
			}
		})
	}
}

// checkVector goes one engine's way, past the API, for tweaks of 128 bits.
func checkVector(t *testing.T, impl implementation, path string, v vector) {
	t.Helper()
	if len(v.pt)*8 != v.bits || len(v.ct)*8 != v.bits {
		t.Fatalf("%s: vector %d has texts of %d and %d bytes, not %d bits", path, v.count, len(v.pt), len(v.ct), v.bits)
	}
	c := mustCipher(t, impl, v.key)
	got := make([]byte, len(v.pt))
	c.engine.encrypt(got, v.pt, v.tweak)
	if !bytes.Equal(got, v.ct) {
		t.Fatalf("%s: vector %d: encrypt\n got %x\nwant %x", path, v.count, got, v.ct)
	}
	c.engine.decrypt(got, v.ct, v.tweak)
	if !bytes.Equal(got, v.pt) {
		t.Fatalf("%s: vector %d: decrypt\n got %x\nwant %x", path, v.count, got, v.pt)
	}
}

func TestFormatUnits(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/format-units.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		DEK   string `json:"dek"`
		Units []struct {
			Unit        uint64 `json:"unit"`
			PlainSHA256 string `json:"plain_sha256"`
			Cipher      string `json:"cipher"`
		} `json:"units"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Units) == 0 {
		t.Fatal("no units in testdata/format-units.json")
	}
	everywhere(t, func(t *testing.T, impl implementation) {
		c := mustCipher(t, impl, mustHex(t, file.DEK))
		for _, u := range file.Units {
			plain := make([]byte, UnitSize)
			for j := range plain {
				plain[j] = byte(7*uint64(j) + u.Unit)
			}
			if sum := sha256.Sum256(plain); hex.EncodeToString(sum[:]) != u.PlainSHA256 {
				t.Fatalf("unit %d: this test makes another plaintext than the vector's", u.Unit)
			}
			got := make([]byte, UnitSize)
			c.Encrypt(got, plain, u.Unit)
			if want := mustHex(t, u.Cipher); !bytes.Equal(got, want) {
				t.Errorf("unit %d: encrypt\n got %x\nwant %x", u.Unit, got, want)
			}
			c.Decrypt(got, got, u.Unit)
			if !bytes.Equal(got, plain) {
				t.Errorf("unit %d: decrypt\n got %x\nwant %x", u.Unit, got, plain)
			}
		}
	})
}
