package fs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmcryptfs/fs/inode"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// keyWait is how long an operation waits for a key: ENOKEY within 5 s.
const keyWait = 4 * time.Second

// keyContext ends after keyWait, when the kernel interrupts the request (cancel is closed), or with
// done. done waits for the goroutine that watches cancel.
func keyContext(cancel <-chan struct{}) (ctx context.Context, done func()) {
	ctx, stop := context.WithTimeout(context.Background(), keyWait)
	return ctx, watch(ctx, stop, cancel)
}

// cancelContext is keyContext without a limit.
func cancelContext(cancel <-chan struct{}) (ctx context.Context, done func()) {
	ctx, stop := context.WithCancel(context.Background())
	return ctx, watch(ctx, stop, cancel)
}

// watch calls stop, which ends ctx, when cancel is closed, or with done.
func watch(ctx context.Context, stop func(), cancel <-chan struct{}) (done func()) {
	if cancel == nil {
		return stop
	}
	// A timeout that is cancelled says Canceled: EINTR.
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-cancel:
			stop()
		case <-ctx.Done():
		}
	}()
	return func() {
		stop()
		<-watched
	}
}

// fileKey is the header and the DEK that a new encrypted file begins with. The caller who had the
// fileKey made wipes it; a file that goes on with the DEK takes the DEK out before.
type fileKey struct {
	at     inode.Place // the place of the file
	header *layout.Header
	dek    *keys.DEK // nil once a file has it
}

// take hands the DEK over to a file, which wipes it when it is closed.
func (k *fileKey) take() *keys.DEK {
	dek := k.dek
	k.dek = nil
	return dek
}

// spent tells that there is no DEK to take.
func (k *fileKey) spent() bool { return k == nil || k.dek == nil }

// wipe forgets a DEK that no file has taken.
func (k *fileKey) wipe() {
	if !k.spent() {
		k.take().Wipe()
	}
}

// newKey makes a DEK and a header that wraps the DEK under the KEK of a place. Nothing is made for
// settings that are not proven. No lock is to be held.
func (f *FS) newKey(cancel <-chan struct{}, at inode.Place) (*fileKey, error) {
	ctx, done := keyContext(cancel)
	defer done()
	k, err := f.wrapNew(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("key for a new file: %w", f.lacksKey(err))
	}
	return k, nil
}

func (f *FS) wrapNew(ctx context.Context, at inode.Place) (*fileKey, error) {
	if err := f.prove(ctx); err != nil {
		return nil, err
	}
	ref, err := f.kekFor(at)
	if err != nil {
		return nil, err
	}
	dek, err := keys.NewDEK()
	if err != nil {
		return nil, err
	}
	h := &layout.Header{Generation: 1, FileID: keys.NewFileID()}
	err = f.keys.UseForNew(ctx, ref, func(kek *keys.KEK) error {
		return kek.Wrap(h, 0, dek)
	})
	if err != nil {
		dek.Wipe()
		return nil, err
	}
	dek.Seal(h)
	return &fileKey{at, h, dek}, nil
}

// errOldKey: the KEK of the place was changed since the key was made.
var errOldKey = errors.New("wrapped under a KEK that is not the current one any more")

// withKey calls use with a new key for a place; again if by the time that FS.names was had the KEK
// is another (errOldKey).
func (f *FS) withKey(cancel <-chan struct{}, at inode.Place, use func(*fileKey) error) error {
	for {
		k, err := f.newKey(cancel, at)
		if err != nil {
			return err
		}
		err = use(k)
		k.wipe()
		if !errors.Is(err, errOldKey) {
			return err
		}
	}
}

// checkKey is errOldKey for a key under which no file may get its name any more. FS.names is held,
// so TakeUpSettings waits for the name of a file whose key has passed.
func (f *FS) checkKey(k *fileKey) error {
	ref, err := f.kekFor(k.at)
	if err != nil {
		return err
	}
	l := &k.header.Lockers[0]
	if l.Provider != ref.Provider || l.KeyID != ref.ID {
		return errOldKey
	}
	return nil
}

// mayCreate is nil if files may be created at all: the settings must be proven.
func (f *FS) mayCreate(cancel <-chan struct{}) error {
	if f.store.Verified() {
		return nil
	}
	ctx, done := keyContext(cancel)
	defer done()
	return f.lacksKey(f.prove(ctx))
}
