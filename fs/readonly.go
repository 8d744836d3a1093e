package fs

// ReadOnly tells if nothing is written to BACKING.
func (f *FS) ReadOnly() bool { return f.readOnly.Load() }

// SetReadOnly has f write nothing to BACKING from now on, or again do so; what is under way ends.
// The kernel is to be told first, which refuses while a file is open for writing. Not to be called
// after Close. An error says why BACKING is unfit to be written: f stays read-only.
func (f *FS) SetReadOnly(on bool) error {
	f.mode.Lock()
	defer f.mode.Unlock()
	if f.readOnly.Load() == on {
		return nil
	}
	if !on {
		if err := f.learn(); err != nil {
			return err
		}
	}
	f.readOnly.Store(on)
	if on {
		f.sweep.stop()
	} else {
		f.startSweep()
	}
	return nil
}
