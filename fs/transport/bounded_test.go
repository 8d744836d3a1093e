package transport

import (
	"reflect"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestBoundedEverywhere: every operation with a way of cancellation waits for a place, and does
// not reach the file system when cancelled before. A RELEASE continues to wait.
func TestBoundedEverywhere(t *testing.T) {
	b := newBounded(nil) // a call of the file system panics
	for op := range b.places {
		for range cap(b.places[op]) {
			b.places[op] <- struct{}{}
		}
	}
	cancelled := make(chan struct{})
	close(cancelled)
	operations := reflect.TypeFor[fuse.RawFileSystem]()
	tried := 0
	for i := range operations.NumMethod() {
		m := operations.Method(i)
		if m.Type.NumIn() == 0 || m.Type.In(0) != reflect.TypeFor[<-chan struct{}]() || m.Name == "Release" || m.Name == "Writev" {
			continue
		}
		tried++
		in := []reflect.Value{reflect.ValueOf((<-chan struct{})(cancelled))}
		for j := 1; j < m.Type.NumIn(); j++ {
			in = append(in, reflect.Zero(m.Type.In(j)))
		}
		out := reflect.ValueOf(b).MethodByName(m.Name).Call(in)
		if s := out[len(out)-1].Interface(); s != fuse.EINTR {
			t.Errorf("%s: %v, want EINTR", m.Name, s)
		}
	}
	if tried < 30 {
		t.Errorf("tried %d operations alone", tried)
	}
}

// TestBoundedAllocatesNothing: go-fuse's calls for each READ and WRITE.
func TestBoundedAllocatesNothing(t *testing.T) {
	b := newBounded(newOneFile())
	p := make([]byte, 4096)
	read, write := &fuse.ReadIn{Size: 4096}, &fuse.WriteIn{Size: 4096}
	if allocs := testing.AllocsPerRun(100, func() {
		if _, s := b.Read(nil, read, p); s != fuse.OK {
			t.Error(s)
		}
		if _, s := b.Write(nil, write, p); s != fuse.OK {
			t.Error(s)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations for a read and a write", allocs)
	}
}
