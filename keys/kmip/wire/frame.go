package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gemalto/kmip-go/ttlv"
)

// MaxMessage bounds a message in bytes, with the header.
const MaxMessage = 1 << 20

const headerLen = 8 // tag 3, type 1, length 4 (KMIP 1.4 §9.1.1)

// ErrMalformed reports that bytes from the peer are no KMIP message accepted here.
var ErrMalformed = errors.New("malformed KMIP message")

// Malformed returns an ErrMalformed with more text; the text must contain no part of a message
// that could be a key.
func Malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// ReadFrame reads one message, a structure with this tag, to a new buffer; the caller wipes the
// buffer. The error is io.EOF before the first byte, ErrMalformed for another tag or a length
// over MaxMessage, else the reader's error, io.ErrUnexpectedEOF for a truncated message.
func ReadFrame(r io.Reader, tag ttlv.Tag) ([]byte, error) {
	var header [headerLen]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	h := ttlv.TTLV(header[:])
	if h.Tag() != tag || h.Type() != ttlv.TypeStructure {
		return nil, Malformed("it begins with %x", header[:4])
	}
	length := binary.BigEndian.Uint32(header[4:])
	if length > MaxMessage-headerLen {
		return nil, Malformed("%d bytes announced, at most %d accepted", length, MaxMessage-headerLen)
	}
	frame := make([]byte, headerLen+int(length))
	copy(frame, header[:])
	if _, err := io.ReadFull(r, frame[headerLen:]); err != nil {
		clear(frame)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return frame, nil
}
