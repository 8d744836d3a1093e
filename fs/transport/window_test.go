package transport

import (
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	var w window
	if w.length() != 0 {
		t.Errorf("begins with %v", w.length())
	}
	for range 10 {
		w.waited(10 * time.Microsecond)
	}
	if w.length() != spinLimit {
		t.Errorf("requests close together: %v, want %v", w.length(), spinLimit)
	}
	w.waited(time.Second)
	if w.length() >= spinLimit {
		t.Errorf("after a long wait: %v", w.length())
	}
	for range 20 {
		w.waited(time.Second)
	}
	if w.length() != 0 {
		t.Errorf("requests far apart: %v, want 0: an idle mount must not cost CPU", w.length())
	}
}

func TestNoWindowOnOneCPU(t *testing.T) {
	w := window{alone: true}
	w.waited(time.Microsecond)
	if w.length() != 0 {
		t.Errorf("looks for %v, and keeps the only CPU from who would send a request", w.length())
	}
}

func TestPace(t *testing.T) {
	var p pace
	if p.slow() {
		t.Error("slow before the first request")
	}
	for range 20 {
		p.took(5 * time.Microsecond)
	}
	p.took(40 * time.Millisecond)
	for range 10 {
		p.took(5 * time.Microsecond)
	}
	if p.slow() {
		t.Error("one long request makes a fast BACKING slow")
	}
	for range 8 {
		p.took(200 * time.Microsecond)
	}
	if !p.slow() {
		t.Error("eight requests of 200 µs do not make a BACKING slow")
	}
}
