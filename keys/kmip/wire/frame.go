package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gemalto/kmip-go/ttlv"
)

// MaxMessage bounds a message, its header included, in bytes.
const MaxMessage = 1 << 20

const headerLen = 8 // tag 3, type 1, length 4 (KMIP 1.4 §9.1.1)

// ErrMalformed says that bytes from the peer are no KMIP message of ours.
var ErrMalformed = errors.New("malformed KMIP message")

// Malformed is an ErrMalformed that says more; never anything of the message that could
// be a key.
func Malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// ReadFrame reads one message, a structure of this tag, to a buffer of its own that
// the caller wipes. The error is io.EOF if not one byte came, ErrMalformed for
// another tag or a length over MaxMessage, else the reader's, io.ErrUnexpectedEOF
// where the message breaks off.
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
