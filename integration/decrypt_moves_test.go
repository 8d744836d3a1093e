package integration

// The independent reader of decrypt_test.go for moving files: the carrier, which bears the mark and
// the records, and the companion beside it. Written from the description of moves alone.

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

const (
	moveMagic  = "\x89VMCMOVE"
	recordSize = 512
	recordA    = 4096
	recordB    = 8192

	// Offsets in a record.
	atRecordVersion   = 8
	atRecordKind      = 10
	atRecordGoal      = 11
	atRecordZero1     = 12
	atRecordSequence  = 16
	atRecordMove      = 24
	atRecordCarrier   = 40
	atRecordCompanion = 56
	atRecordWatermark = 72
	atRecordZero2     = 80
	atRecordMAC       = 480

	kindEncrypt = 1
	kindDecrypt = 2
	kindDeep    = 3

	allInSource = math.MaxUint64
)

var (
	errNoRecord    = errors.New("no record of the move is right")
	errNoCompanion = errors.New("the companion is missing")
	errCompanion   = errors.New("the companion is not the record's")
)

// storedFile is a backing file.
type storedFile struct {
	io.ReaderAt
	size int64
}

func inMemory(b []byte) *storedFile { return &storedFile{bytes.NewReader(b), int64(len(b))} }

// whole is the content of a backing file in clear.
func (f *storedFile) whole() ([]byte, error) {
	b := make([]byte, f.size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// moveRecord holds the fields that tell where the content lies.
type moveRecord struct {
	kind      byte
	back      bool
	sequence  uint64
	companion []byte
	watermark uint64
}

// recordMAC is the right MAC of a record in a carrier with the key dek and the file id.
func recordMAC(dek, fileID, record []byte) []byte {
	key, err := hkdf.Key(sha256.New, dek, fileID, "vmcryptfs move v1", 32)
	if err != nil {
		panic(err) // 32 bytes are always to be had
	}
	return hmacSHA256(key, record[:atRecordMAC])
}

// provenRecord reads both slots, and returns the proven record with the higher sequence.
func provenRecord(f io.ReaderAt, dek, slot []byte) (best moveRecord, err error) {
	fileID := slot[atFileID:atDataOffset]
	for _, at := range []int64{recordA, recordB} {
		b := make([]byte, recordSize)
		if _, err := f.ReadAt(b, at); err != nil {
			return best, fmt.Errorf("read record at %d: %w", at, err)
		}
		switch {
		case !hmac.Equal(b[atRecordMAC:], recordMAC(dek, fileID, b)):
		case !bytes.Equal(b[atRecordMove:atRecordCarrier], slot[atMark:atReserved2]):
		case !bytes.Equal(b[atRecordCarrier:atRecordCompanion], fileID):
		default:
			r, err := decodeRecord(b)
			if err != nil {
				return best, fmt.Errorf("record at %d: %w", at, err)
			}
			if r.sequence > best.sequence {
				best = r
			}
		}
	}
	if best.sequence == 0 {
		return best, errNoRecord
	}
	return best, nil
}

// decodeRecord decodes a proven record: what no move writes is an error.
func decodeRecord(b []byte) (moveRecord, error) {
	le := binary.LittleEndian
	r := moveRecord{
		kind: b[atRecordKind], back: b[atRecordGoal] == 1, sequence: le.Uint64(b[atRecordSequence:]),
		companion: b[atRecordCompanion:atRecordWatermark], watermark: le.Uint64(b[atRecordWatermark:]),
	}
	switch {
	case string(b[:len(moveMagic)]) != moveMagic, le.Uint16(b[atRecordVersion:]) != 1:
		return r, fmt.Errorf("magic or version: %x", b[:atRecordKind])
	case r.kind < kindEncrypt || r.kind > kindDeep, b[atRecordGoal] > 1:
		return r, fmt.Errorf("kind %d, goal %d", r.kind, b[atRecordGoal])
	case !zero(b[atRecordZero1:atRecordSequence]), !zero(b[atRecordZero2:atRecordMAC]):
		return r, errors.New("reserved bytes are not zero")
	case r.sequence == 0:
		return r, errors.New("sequence 0")
	case zero(r.companion) == (r.kind == kindDeep):
		return r, fmt.Errorf("kind %d with companion %x", r.kind, r.companion)
	case r.watermark != allInSource && (r.watermark%unitSize != 0 || r.watermark > math.MaxInt64):
		return r, fmt.Errorf("watermark %d", r.watermark)
	}
	return r, nil
}

// readMoving is the content of a moving file. companion is nil where there is none.
func readMoving(carrier, companion *storedFile, keks map[string][]byte) ([]byte, error) {
	slot, err := countingSlot(carrier)
	if err != nil {
		return nil, err
	}
	if !marked(slot) {
		return nil, errors.New("it does not move")
	}
	plain, err := openSlot(carrier, carrier.size, slot, keks)
	if err != nil {
		return nil, err
	}
	r, err := provenRecord(carrier, []byte(plain.dek), slot)
	if err != nil {
		return nil, err
	}
	own, err := plain.all()
	if err != nil || r.alone() {
		return own, err
	}
	if companion == nil {
		return nil, errNoCompanion
	}
	other, err := r.readCompanion(companion, keks)
	if err != nil {
		return nil, err
	}
	if r.kind == kindDecrypt {
		return r.join(own, other)
	}
	return r.join(other, own)
}

// alone reports whether the carrier holds the whole content.
func (r moveRecord) alone() bool {
	if r.kind == kindDecrypt {
		return r.watermark == allInSource
	}
	return r.watermark == 0
}

// readCompanion is what the companion holds, if it is of the recorded form and file id.
func (r moveRecord) readCompanion(f *storedFile, keks map[string][]byte) ([]byte, error) {
	if r.kind == kindDeep {
		plain, err := openPlain(f, f.size, keks)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errCompanion, err)
		}
		if plain.id != string(r.companion) {
			return nil, fmt.Errorf("%w: file id %x, recorded is %x", errCompanion, plain.id, r.companion)
		}
		return plain.all()
	}
	b, err := f.whole()
	if err == nil && bytes.HasPrefix(b, []byte(magic)) {
		err = fmt.Errorf("%w: it is encrypted", errCompanion)
	}
	return b, err
}

// join is the content: below the watermark s, from there on d. The size is d's.
func (r moveRecord) join(s, d []byte) ([]byte, error) {
	if r.watermark == allInSource {
		return s, nil
	}
	if uint64(len(s)) < r.watermark {
		return nil, fmt.Errorf("%w: S ends at %d, before the watermark %d", errCompanion, len(s), r.watermark)
	}
	below := min(r.watermark, uint64(len(d))) // d is shorter where a shrink was cut off
	return append(bytes.Clone(s[:below]), d[below:]...), nil
}
