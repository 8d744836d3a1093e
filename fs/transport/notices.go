package transport

import "github.com/hanwen/go-fuse/v2/fuse"

// mostNotices bounds the notices under way that wait for pages. Each notice has a thread, and
// need not belong to a request: fs has pages of many files dropped beside requests.
const mostNotices = 256

// notices gives places to notices. A notice may wait for a READ, or a WRITE of pages; such
// requests send no notice that needs a place.
type notices struct {
	Notifier
	places chan struct{} // one element for each notice under way
}

func newNotices(n Notifier) notices { return notices{n, make(chan struct{}, mostNotices)} }

func (n notices) InodeNotify(node uint64, off, length int64) fuse.Status {
	if off >= 0 { // else the notice is about attributes alone, and waits for nothing
		n.places <- struct{}{}
		defer func() { <-n.places }()
	}
	return n.Notifier.InodeNotify(node, off, length)
}
