package transport

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// loop is this package's own transport. The workers take turns: one worker, the reader, has no
// request and waits for the next one. The reader treats a request by its expected time:
//
//   - READ and WRITE of a BACKING that answers from memory take a few microseconds, less
//     than waking another thread. The reader answers such a request itself, and nobody reads
//     meanwhile.
//   - Other requests may take longer: a BACKING that makes requests wait, a large transfer,
//     most other operations (an open may wait seconds for a key server). The reader first
//     makes another worker the reader, then begins such a request.
//
// So a guest's disk is served by one thread that does not sleep between requests, and many slow
// requests are under way at once, each on a worker of its own. When a request expected to be fast
// is slow, the watch notices, and another worker reads on. Where there are more requests than one
// thread can answer, up to half of the CPUs read. The number of requests under way is bounded: a
// request without a place is held until its turn (places).
type loop struct {
	mount
	raw      fuse.RawFileSystem
	protocol *fuse.ProtocolServer
	device   *device
	o        Options

	window  window
	pace    pace
	watch   *watch
	running sync.WaitGroup // the workers
	places  places

	turns
}

func serveLoop(mountpoint string, raw fuse.RawFileSystem, o Options) (Server, error) {
	fuseFD, mount, err := connect(mountpoint, o)
	if err != nil {
		return nil, err
	}
	device, err := newDevice(fuseFD)
	if err != nil {
		return nil, errors.Join(err, mount.Unmount(true))
	}
	l := &loop{
		mount:    mount,
		raw:      raw,
		protocol: fuse.NewProtocolServer(raw, mountOptions(o)),
		device:   device,
		o:        o,
		turns: turns{
			workers:   make(map[*worker]struct{}),
			newWorker: newWorker,
			most:      max(1, runtime.GOMAXPROCS(0)/2),
		},
	}
	l.window.alone = runtime.GOMAXPROCS(0) == 1
	l.watch = newWatch(l)
	if err := l.start(); err != nil {
		device.close()
		return nil, errors.Join(fmt.Errorf("mount %s: %w", mountpoint, err), l.Unmount(true))
	}
	go l.finish()
	if err := l.answers(); err != nil {
		return nil, l.giveUp(err)
	}
	return l, nil
}

// start answers INIT and sets the first reader to work.
func (l *loop) start() error {
	w, err := newWorker()
	if err != nil {
		return err
	}
	var n int
	err = uninterrupted(func() (err error) {
		n, err = l.device.wait(w.in)
		return err
	})
	if err != nil {
		w.free()
		return fmt.Errorf("read INIT: %w", err)
	}
	l.hand(w, l.device.waiting, n)
	l.o.initialised(l, w.initIn().Flags64())
	l.mu.Lock()
	l.add(w)
	l.mu.Unlock()
	return nil
}

// finish waits for the last request and releases everything.
func (l *loop) finish() {
	l.running.Wait()
	l.watch.stop()
	l.device.close()
	l.raw.OnUnmount()
	close(l.done)
}

// work answers requests until the connection is gone, or there are workers enough.
func (l *loop) work(w *worker) {
	defer l.retire(w)
	for {
		n, fd, ok := l.read(w)
		if !ok {
			return
		}
		l.serve(w, fd, n)
		if !l.takeTurn(w) {
			return
		}
	}
}

func (l *loop) Name() string { return Loop }

// InodeNotify returns when no request for the pages is under way. Some worker must answer such
// requests meanwhile, and the caller may be the reader.
func (l *loop) InodeNotify(node uint64, off, length int64) fuse.Status {
	l.promote()
	return l.device.notifyInode(node, off, length)
}
