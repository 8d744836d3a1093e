package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// badFile is a backing file forged by somebody with access to BACKING, with the answers required
// from the mount and the commands.
type badFile struct {
	name  string
	file  []byte
	errno error // of open through the mount; nil: the file opens
	code  int   // of export; 0: success
	info  int   // of info, which has no key: 4 for faults visible without a key, else 0
	clear bool  // the name's class is clear: .log, not .img
}

// plainText is the content of every forged file.
var plainText = bytes.Repeat([]byte("plaintext of a forged file, longer than a unit. "), 40)

// flip changes one byte of both slots and makes the slots well-formed again.
func flip(f forgery, at int) []byte {
	s := f.slot()
	s[at] ^= 0x01
	return image(resum(s), sealData(f.dek, plainText))
}

// edited returns a file whose slot was edited before wrapping and authentication, as by a holder
// of the keys, or another version of the program.
func edited(f forgery, edit func(s []byte)) []byte {
	s := f.unsealed()
	edit(s)
	f.wrap(s)
	f.mac(s)
	return image(resum(s), sealData(f.dek, plainText))
}

// broken is the right file with bytes written over.
func broken(f forgery, parts map[int][]byte) []byte {
	b := f.file(plainText)
	for at, part := range parts {
		copy(b[at:], part)
	}
	return b
}

// badFields are single fields changed by somebody without keys: SHA-256 right, MAC not.
func badFields(fresh func() forgery) []badFile {
	eio, newer, nokey := unix.EIO, unix.EOPNOTSUPP, unix.ENOKEY
	fields := []struct {
		name string
		at   int
		badFile
	}{
		{"version", atVersion, badFile{errno: newer, code: 1, info: 1}},
		{"cipher", atCipher, badFile{errno: newer, code: 1, info: 1}},
		{"flags", atFlags, badFile{errno: newer, code: 1, info: 1}},
		{"flags top bit", atFlags + 3, badFile{errno: newer, code: 1, info: 1}},
		{"generation", atGeneration + 1, badFile{errno: eio, code: 4}},
		{"file id", atFileID, badFile{errno: eio, code: 4}},
		{"file id end", atFileID + 15, badFile{errno: eio, code: 4}},
		{"data offset", atDataOffset, badFile{errno: newer, code: 1, info: 1}},
		{"reserved 44", atReserved1 + 7, badFile{errno: newer, code: 1, info: 1}},
		{"provider length", atLockers + inProviderLen, badFile{errno: eio, code: 4, info: 4}},
		{"key id length", atLockers + inKeyIDLen, badFile{errno: eio, code: 4, info: -1}},
		{"key id length high", atLockers + inKeyIDLen + 1, badFile{errno: eio, code: 4, info: 4}},
		{"check value", atLockers + inKCV, badFile{errno: nokey, code: 3}},
		{"nonce", atLockers + inNonce, badFile{errno: eio, code: 4}},
		{"wrapped key", atLockers + inWrapped + 5, badFile{errno: eio, code: 4}},
		{"wrapped key end", atLockers + inWrapped + 63, badFile{errno: eio, code: 4}},
		{"tag", atLockers + inWrapped + 64, badFile{errno: eio, code: 4}},
		{"provider", atLockers + inProvider, badFile{errno: eio, code: 4}},
		{"provider padding", atLockers + inProvider + 63, badFile{errno: eio, code: 4, info: 4}},
		{"key id", atLockers + inKeyID, badFile{errno: nokey, code: 3}},
		{"key id padding", atLockers + inKeyID + 255, badFile{errno: eio, code: 4, info: 4}},
		{"wrap's own bytes", atLockers + inRest + 3, badFile{errno: eio, code: 4, info: 4}},
		{"empty locker", atLockers + lockerSize + 100, badFile{errno: eio, code: 4, info: 4}},
		{"last locker", atMAC - 1, badFile{errno: eio, code: 4, info: 4}},
		{"slot MAC", atMAC, badFile{errno: eio, code: 4}},
		{"mark", atMark, badFile{errno: eio, code: 4, info: 4}},
		{"mark end", atReserved2 - 1, badFile{errno: eio, code: 4, info: 4}},
		{"reserved 3952", atReserved2, badFile{errno: newer, code: 1, info: 1}},
	}
	var all []badFile
	for _, f := range fields {
		b := f.badFile
		b.name, b.file = "field "+f.name, flip(fresh(), f.at)
		all = append(all, b)
	}
	return all
}

// badHeaders are headers wrong as a whole.
func badHeaders(fresh func() forgery) []badFile {
	f, g := fresh(), fresh()
	garbage := bytes.Repeat([]byte{0x5a}, slotSize/2)
	older, last, none := fresh(), fresh(), fresh()
	older.generation, last.generation, none.generation = 9, ^uint64(0), 0
	other := fresh()
	other.kek = random(32)
	equal := fresh()
	copy(equal.dek[32:], equal.dek[:32])
	withName := func(provider, keyID string) []byte {
		n := fresh()
		n.provider, n.keyID = provider, keyID
		return n.file(plainText)
	}
	wiped := make([]byte, len(magic))
	return []badFile{
		{name: "whole", file: f.file(plainText)},
		{name: "whole in a log", file: f.file(plainText), clear: true},
		{name: "slot A torn", file: broken(f, map[int][]byte{slotSize / 2: garbage})},
		{name: "slot B torn", file: broken(f, map[int][]byte{slotB + slotSize/2: garbage})},
		{name: "both torn", file: broken(f, map[int][]byte{slotSize / 2: garbage, slotB + slotSize/2: garbage}), errno: unix.EIO, code: 4, info: 4},
		{name: "both sums wrong", file: broken(f, map[int][]byte{atSHA: garbage[:1], slotB + atSHA: garbage[:1]}), errno: unix.EIO, code: 4, info: 4},
		{name: "header alone", file: f.file(nil)[:slotSize], errno: unix.EIO, code: 4, info: 4},
		{name: "cut before 1 MiB", file: f.file(nil)[:dataStart-1], errno: unix.EIO, code: 4, info: 4},
		{name: "magic alone", file: []byte(magic), errno: unix.EIO, code: 4, info: 4},
		{name: "magic and zeros", file: append([]byte(magic), make([]byte, dataStart)...), errno: unix.EIO, code: 4, info: 4},
		{name: "slots of two files", file: broken(f, map[int][]byte{slotB: g.slot()}), errno: unix.EIO, code: 4, info: 4},
		{name: "generation 0", file: none.file(plainText), errno: unix.EIO, code: 4, info: 4},
		{name: "last generation", file: last.file(plainText)},
		{name: "another generation below", file: broken(older, map[int][]byte{slotB: func() []byte {
			o := older
			o.generation = 3
			return o.slot()
		}()})},
		{name: "newer slot unsupported", file: broken(older, map[int][]byte{slotB: func() []byte {
			o := older
			o.generation = 10
			s := o.slot()
			s[atVersion] = 2
			return resum(s)
		}()}), errno: unix.EOPNOTSUPP, code: 1, info: 1},
		{name: "another key of that identifier", file: other.file(plainText), errno: unix.ENOKEY, code: 3},
		{name: "no such key", file: withName("dev", "no-such-key-0815"), errno: unix.ENOKEY, code: 3},
		{name: "no such provider", file: withName("elsewhere", "no-such-key-0815"), errno: unix.ENOKEY, code: 3},
		{name: "provider by another name", file: withName("elsewhere", f.keyID)},
		{name: "equal key halves", file: equal.file(plainText), errno: unix.EIO, code: 4},
		{name: "control character in provider", file: withName("de\x1bv", f.keyID), errno: unix.EIO, code: 4, info: 4},
		{name: "key id not UTF-8", file: withName("dev", "\xff\xfe"), errno: unix.EIO, code: 4, info: 4},
		{name: "empty provider", file: withName("", f.keyID), errno: unix.EIO, code: 4, info: 4},
		{name: "no locker", file: edited(fresh(), func(s []byte) { clear(s[atLockers:atMAC]) }), errno: unix.EIO, code: 4, info: -1},
		{name: "wrap 0 and not empty", file: flip(fresh(), atLockers+inWrap), errno: unix.EIO, code: 4, info: 4},
		{name: "wrap of a newer version", file: edited(fresh(), func(s []byte) { s[atLockers] = 7 }), errno: unix.EOPNOTSUPP, code: 1},
		{name: "unknown wrap beside", file: edited(fresh(), func(s []byte) { s[atLockers+lockerSize] = 9; s[atLockers+2*lockerSize-1] = 1 })},
		{name: "magic of A wiped", file: broken(f, map[int][]byte{0: wiped}), errno: unix.EACCES, info: -1},
		{name: "both magics wiped", file: broken(f, map[int][]byte{0: wiped, slotB: wiped}), errno: unix.EACCES, code: -1, info: -1},
		{name: "cleartext", file: plainText, errno: unix.EACCES, code: -1, info: -1},
		{name: "large cleartext", file: bytes.Repeat(plainText, 1000), errno: unix.EACCES, code: -1, info: -1},
	}
}

// TestBadHeaders puts every kind of wrong file into BACKING under a live mount: a clear
// error each, through the mount and from the commands, and not a byte rewritten.
func TestBadHeaders(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d := newServed(t, s)
	d.Write("reference.img", plainText)
	keyID, kek := d.currentKey("reference.img")
	fresh := func() forgery { return newForgery("dev", keyID, kek) }
	cases := append(badFields(fresh), badHeaders(fresh)...)
	for i := range cases {
		t.Run(cases[i].name, func(t *testing.T) { cases[i].check(t, d) })
	}
	if pid := d.Status().PID; pid != d.PID {
		t.Errorf("daemon %d answers, want %d", pid, d.PID)
	}
	wantSame(t, "a good file beside them", d.Read("reference.img"), plainText)
	t.Logf("%d wrong or odd headers", len(cases))
}

// currentKey returns the key under which name is wrapped.
func (d *datastore) currentKey(name string) (id string, kek []byte) {
	d.T.Helper()
	f, err := os.Open(d.Below(name))
	if err != nil {
		d.T.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	slot, err := countingSlot(f)
	if err != nil {
		d.T.Fatal(err)
	}
	id = keyIDs(slot)[0]
	if kek, err = d.kek(id); err != nil {
		d.T.Fatal(err)
	}
	return id, kek
}

func (b badFile) check(t *testing.T, d *datastore) {
	name := strings.ReplaceAll(b.name, " ", "-") + ".img"
	if b.clear {
		name = strings.TrimSuffix(name, ".img") + ".log"
	}
	if err := os.WriteFile(d.Below(name), b.file, 0o644); err != nil {
		t.Fatal(err)
	}
	// Opening for writing may repair a torn slot of a file right otherwise.
	modes := []int{unix.O_RDONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_APPEND}
	if b.errno == nil {
		modes = modes[:1]
	}
	for _, flags := range modes {
		if err := mounttest.OpenErr(d.Path(name), flags); !errors.Is(err, b.errno) {
			t.Errorf("open (flags %#x): %v, want %v", flags, err, b.errno)
		}
	}
	if b.errno == nil {
		wantSame(t, name, d.Read(name), plainText)
	} else if err := os.Truncate(d.Path(name), 0); !errors.Is(err, b.errno) {
		t.Errorf("truncate: %v, want %v", err, b.errno)
	}
	b.checkExport(t, d, name)
	wantCode(t, d.Command("info", d.Below(name)), b.info, name)
	after, err := os.ReadFile(d.Below(name))
	if err != nil || !bytes.Equal(after, b.file) {
		t.Errorf("BACKING was rewritten (%v)", err)
	}
	if b.errno == nil {
		b.checkMended(t, d, name)
	}
}

// checkExport: the plaintext, or an error and no output.
func (b badFile) checkExport(t *testing.T, d *datastore, name string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	r := d.Command("export", d.Below(name), "-o", out)
	wantCode(t, r, b.code, name)
	got, err := os.ReadFile(out)
	switch {
	case r.Code == 0 && (err != nil || !bytes.Equal(got, plainText)):
		t.Errorf("export: %d bytes (%v), want the plaintext's %d", len(got), err, len(plainText))
	case r.Code != 0 && !os.IsNotExist(err):
		t.Errorf("export failed and left %s (%v)", out, err)
	}
}

// wantCode checks an exit code (-1: any but 0), and that the error is one line naming the file.
func wantCode(t *testing.T, r mounttest.Result, code int, name string) {
	t.Helper()
	if code == -1 && r.Code == 0 && r.Argv[1] != "info" || code >= 0 && r.Code != code {
		t.Errorf("want exit %d: %v", code, r)
	}
	if r.Code == 0 {
		return
	}
	if strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, name) || strings.Contains(r.Stderr, "panic") {
		t.Errorf("want one line on standard error that names %s: %v", name, r)
	}
}

// checkMended opens a right file for writing: afterwards both slots are one.
func (b badFile) checkMended(t *testing.T, d *datastore, name string) {
	t.Helper()
	if err := mounttest.OpenErr(d.Path(name), unix.O_RDWR); err != nil {
		t.Errorf("open for writing: %v", err)
	}
	after, err := os.ReadFile(d.Below(name))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(after[:slotSize], after[slotB:][:slotSize]) {
		t.Error("the slots still differ after an open for writing")
	}
	if !bytes.Equal(after[dataStart:], b.file[dataStart:]) {
		t.Error("data was changed by an open")
	}
	wantSame(t, fmt.Sprintf("%s mended", name), d.Read(name), plainText)
}
