package wire

import (
	"github.com/gemalto/kmip-go/ttlv"
)

// MaxDepth bounds structures within structures; the deepest message of KMIP 2.0 that
// we send or accept has 9.
const MaxDepth = 24

// check walks every header of a message: known types, lengths that fit their type and
// their structure, no deeper than MaxDepth. The codec library's own check recurses as
// deep as the message says, so this one goes first. It keeps the ends of the
// structures it is in on a stack of fixed size.
func check(frame []byte) error {
	var ends [MaxDepth]int
	depth, at := 0, 0
	end := len(frame)
	for {
		for at == end {
			if depth == 0 {
				return nil
			}
			depth--
			end = ends[depth]
		}
		item := ttlv.TTLV(frame[at:end])
		if err := item.ValidHeader(); err != nil {
			return Malformed("at byte %d: %v", at, err)
		}
		full := item.FullLen()
		if full > end-at {
			return Malformed("at byte %d: %d bytes announced, %d there", at, full, end-at)
		}
		if item.Type() != ttlv.TypeStructure {
			at += full
			continue
		}
		if depth == MaxDepth {
			return Malformed("at byte %d: nested deeper than %d", at, MaxDepth)
		}
		ends[depth] = end
		depth++
		end = at + full
		at += headerLen
	}
}

// Decode checks a whole message and gives it to f as an Item. It is the one place
// where a panic of the codec library, or of f over a value it did not expect, becomes
// an error (ErrMalformed).
func Decode(frame []byte, f func(message Item) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			// Not what it says: it may quote the message.
			err = Malformed("the decoder gave up")
		}
	}()
	if err := check(frame); err != nil {
		return err
	}
	if len(frame) == 0 || ttlv.TTLV(frame).FullLen() != len(frame) {
		return Malformed("not one structure")
	}
	return f(Item{ttlv.TTLV(frame)})
}
