package move

import "errors"

// ErrGone reports a move whose file was removed: the move has ended. Those who have the file open
// go on with both halves.
var ErrGone = errors.New("the file was removed, and its move is over")

// Abandon ends the move of a file that was removed, or replaced by another: Step, Turn, Back and
// Return give ErrGone from now on. Requests go on. A call under way comes to its end.
func (p *Pair) Abandon() { p.gone.Store(true) }

// Gone reports whether the move was abandoned.
func (p *Pair) Gone() bool { return p.gone.Load() }

// present is ErrGone after Abandon.
func (p *Pair) present() error {
	if p.gone.Load() {
		return ErrGone
	}
	return nil
}
