package scan

import (
	"cmp"
	"context"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

const (
	// mostLater bounds what is kept for a second look.
	mostLater = 10_000
	// settleTime is how old a temporary, or a half of a move, must be to count as left behind. A
	// mount makes and removes temporaries in less.
	settleTime = 2 * time.Second
)

// later is what counts only if it is still so after the walk: a mount beside the scan makes and
// removes such files.
type later struct {
	listed  map[layout.FileID]bool // moves under way when the scan began
	temps   []temp
	moves   map[moveKey]*move
	kept    int   // temps, and halves of moves
	dropped int64 // what was too much to be kept
	newest  int64 // time of the last change of a kept file
	// searched is how many directories were looked through for a carrier.
	searched int
}

func newLater(s *layout.Settings) later {
	return later{listed: listedIn(s), moves: make(map[moveKey]*move)}
}

func listedIn(s *layout.Settings) map[layout.FileID]bool {
	listed := make(map[layout.FileID]bool, len(s.Moves))
	for _, id := range s.Moves {
		listed[id] = true
	}
	return listed
}

// temp is a temporary, and whose.
type temp struct {
	sight
	whose string
}

// room reports whether f can be kept, and counts it.
func (l *later) room(f *sight) bool {
	if l.kept == mostLater {
		l.dropped++
		return false
	}
	l.kept++
	l.newest = max(l.newest, f.born)
	return true
}

func (l *later) temporary(f *sight, whose string) {
	if l.room(f) {
		l.temps = append(l.temps, temp{*f, whose})
	}
}

// settle looks again at what was kept, once it is old enough.
func (s *scanner) settle(ctx context.Context) error {
	if s.later.kept == 0 {
		return nil
	}
	if err := s.rest(ctx); err != nil {
		return err
	}
	now, err := s.listedNow()
	if err != nil {
		s.unread(settingsPath(), err)
	}
	for i := range s.later.temps {
		if t := &s.later.temps[i]; s.isStill(&t.sight) {
			s.add(t.finding(Temporary, "a temporary of vmcryptfs "+t.whose))
		}
	}
	keys := make([]moveKey, 0, len(s.later.moves))
	for k := range s.later.moves {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b moveKey) int {
		return cmp.Or(cmp.Compare(a.dir, b.dir), slices.Compare(a.id[:], b.id[:]))
	})
	for _, k := range keys {
		s.judgeMove(ctx, s.later.moves[k], k.id, now)
	}
	if n := s.later.dropped; n > 0 {
		s.Kinds[Temporary] += n
		s.Complete = false
		s.note("there are more temporaries and halves of moves than are looked at; the others are counted as temporaries")
	}
	return ctx.Err()
}

// rest waits until the newest of what was kept is old enough.
func (s *scanner) rest(ctx context.Context) error {
	timer := time.NewTimer(min(settleTime, time.Until(time.Unix(0, s.later.newest).Add(cmp.Or(s.Settle, settleTime)))))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// listedNow are the moves that the settings list by now, or listed when the scan began.
func (s *scanner) listedNow() (map[layout.FileID]bool, error) {
	listed := s.later.listed
	if s.Again == nil {
		return listed, nil
	}
	settings, err := s.Again()
	if err != nil {
		return listed, err
	}
	if settings.Serial != s.Store.Settings().Serial {
		s.note("the settings were changed during the scan: run it again to judge by the new ones")
	}
	return listedIn(settings), nil
}

// isStill reports whether the path of f leads to the same file as before.
func (s *scanner) isStill(f *sight) bool {
	dir, err := s.parent(f.path)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	return unix.Fstatat(dir, f.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && backing.KeyOf(&st) == f.key
}

// isThere reports whether a name leads somewhere, in the directory of the path beside.
func (s *scanner) isThere(beside, name string) bool {
	dir, err := s.parent(beside)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// isMarked reports whether the path of f leads to a file that a move still marks.
func (s *scanner) isMarked(ctx context.Context, f *sight, id layout.FileID) bool {
	dir, err := s.parent(f.path)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	b, err := backing.OpenFound(dir, f.name)
	if err != nil || b == nil {
		return false
	}
	defer b.Close()
	slots, err := backing.ReadHeader(ctx, b)
	return err == nil && slots.Header.Mark == id
}

// parent opens the directory of a path below BACKING, with no symbolic link on the way.
func (s *scanner) parent(at string) (int, error) {
	return unix.Openat2(s.Store.Fd(), path.Dir(at), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}
