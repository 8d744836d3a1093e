package wire

import (
	"github.com/gemalto/kmip-go/ttlv"
)

// MaxDepth bounds structures within structures; the deepest KMIP 2.0 message sent or accepted
// here has 9.
const MaxDepth = 24

// check walks every header of a message: known types, lengths that fit the type and the enclosing
// structure, no deeper than MaxDepth. The codec library's own check recurses as deep as the
// message demands, so this check comes first. check keeps the ends of enclosing structures on a
// stack of fixed size.
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

// Decode checks a whole message and passes the message to f as an Item. Here alone a panic of the
// codec library, or of f over an unexpected value, becomes an error (ErrMalformed).
func Decode(frame []byte, f func(message Item) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			// The text of the panic is left out: the text may quote the message.
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
