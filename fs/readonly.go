package fs

// ReadOnly tells if nothing is written to BACKING.
func (f *FS) ReadOnly() bool { return f.readOnly.Load() }

// SetReadOnly has f write nothing to BACKING from now on, or again do so; what is under way ends.
// The kernel is to be told first, which refuses while a file is open for writing. Not to be called
// after Close.
func (f *FS) SetReadOnly(on bool) {
	f.mode.Lock()
	defer f.mode.Unlock()
	if f.readOnly.Swap(on) == on {
		return
	}
	if on {
		f.sweep.stop()
	} else {
		f.startSweep()
	}
}
