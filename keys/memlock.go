package keys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MostFiles returns how many encrypted files this process can have open at once by the limit on
// locked memory (RLIMIT_MEMLOCK), returned in bytes, if each file has a DEK and a secret of
// schedule bytes. limited is false without a limit. HardenProcess raises the limit as far as
// allowed, and must come before.
func MostFiles(schedule int) (files int, bytes uint64, limited bool, err error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return 0, 0, false, fmt.Errorf("read the limit on locked memory: %w", err)
	}
	if mayLockAll(limit) {
		return 0, limit.Cur, false, nil
	}
	return filesWithin(limit.Cur, schedule), limit.Cur, true, nil
}

// others counts secrets beyond those of files: KEKs, and secrets in use for a moment.
const others = 8

// filesWithin is MostFiles for a limit in bytes.
func filesWithin(limit uint64, schedule int) int {
	page := os.Getpagesize()
	chunk := (chunkSize + page - 1) / page * page
	chunks := int(min(limit/uint64(chunk), 1<<20)) // with more than one class could fill
	for n := chunks; n > 0; n-- {
		files := n * (chunk / classSizes[classOf(schedule)])
		deks := (files + others + chunk/classSizes[0] - 1) / (chunk / classSizes[0])
		if n+deks <= chunks {
			return files
		}
	}
	return 0
}
