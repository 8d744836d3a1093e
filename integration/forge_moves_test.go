package integration

import (
	"bytes"
	"encoding/binary"
)

// movingForgery holds the parts of a forged moving file.
type movingForgery struct {
	carrier forgery
	move    []byte // the mark
	kind    byte
	// companion is the source's header of a move of kind 3, for the file id in the record.
	companion forgery
}

func newMovingForgery(kind byte, keyID string, kek []byte) movingForgery {
	id := newForgery("", "", nil).fileID
	return movingForgery{newForgery("corp", keyID, kek), id, kind, newForgery("corp", keyID, kek)}
}

// mark puts the move's id into the slot s.
func (m movingForgery) mark(s []byte) []byte {
	copy(s[atMark:], m.move)
	copy(s[atMAC:], slotMAC(m.carrier.dek, s))
	return resum(s)
}

// record is a right record.
func (m movingForgery) record(sequence, watermark uint64) []byte {
	le := binary.LittleEndian
	b := make([]byte, recordSize)
	copy(b, moveMagic)
	le.PutUint16(b[atRecordVersion:], 1)
	b[atRecordKind] = m.kind
	le.PutUint64(b[atRecordSequence:], sequence)
	copy(b[atRecordMove:], m.move)
	copy(b[atRecordCarrier:], m.carrier.fileID)
	if m.kind == kindDeep {
		copy(b[atRecordCompanion:], m.companion.fileID)
	}
	le.PutUint64(b[atRecordWatermark:], watermark)
	return m.sealRecord(b)
}

// sealRecord makes the MAC of a changed record right.
func (m movingForgery) sealRecord(b []byte) []byte {
	copy(b[atRecordMAC:], recordMAC(m.carrier.dek, m.carrier.fileID, b))
	return b
}

// halves are the carrier, without a record, and the companion of a file with the content plain that
// has moved down to the watermark w. What counts for nothing is a hole in d, and absent in s.
func (m movingForgery) halves(plain []byte, w int) (carrier, companion []byte) {
	s := plain[:w]
	d := append(make([]byte, w), plain[w:]...)
	slot := m.mark(m.carrier.slot())
	switch m.kind {
	case kindEncrypt:
		return image(slot, m.sealBelow(d, w)), s
	case kindDecrypt:
		return image(slot, sealData(m.carrier.dek, s)), d
	default:
		return image(slot, m.sealBelow(d, w)), m.companion.file(s)
	}
}

// sealBelow is sealData with a hole below w.
func (m movingForgery) sealBelow(plain []byte, w int) []byte {
	data := sealData(m.carrier.dek, plain)
	clear(data[:w])
	return data
}

// withRecords puts records into a copy of the carrier.
func withRecords(carrier, a, b []byte) []byte {
	c := bytes.Clone(carrier)
	copy(c[recordA:], a)
	copy(c[recordB:], b)
	return c
}
