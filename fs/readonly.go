package fs

// ReadOnly reports whether BACKING is left unwritten. Safe for concurrent use.
func (f *FS) ReadOnly() bool { return f.readOnly.Load() }

// SetReadOnly ends, or permits again, writes to BACKING; operations under way come to their end.
// The caller has the kernel's mount made read-only first, which the kernel refuses while a file is
// open for writing. An error says why BACKING is unfit to be written; f stays read-only then. Safe
// for concurrent use, before Close.
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
