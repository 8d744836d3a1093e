package moves

import (
	"fmt"

	"vmcryptfs/fs/wire"
)

const (
	// batchSize is how many moves one change of the settings lists for a request.
	batchSize = 32
	// mostJobs bounds the moves that a request does side by side.
	mostJobs = 32
	// mostPlanned bounds the files that one walk of a request finds. A further walk finds the rest.
	mostPlanned = 1 << 18
	// mostPasses bounds the walks of a request: files that others make meanwhile are left.
	mostPasses = 3
)

// Request is for moves. The control socket takes a Request as JSON.
type Request struct {
	Paths wire.Paths `json:"paths"` // below BACKING; "." is all
	// Deep gives every encrypted file a new DEK. Else files get what their places want.
	Deep bool `json:"deep,omitempty"`
	// Rate bounds the bytes copied in a second by all moves of the request; 0: no bound.
	Rate int64 `json:"rate,omitempty"`
	// Jobs is how many files move side by side; 0: one.
	Jobs int `json:"jobs,omitempty"`
}

// check refuses a request that makes no sense, and completes r.
func (r *Request) check() (err error) {
	if r.Rate < 0 || r.Jobs < 0 || r.Jobs > mostJobs {
		return fmt.Errorf("%w: a rate of %d and %d jobs, at most %d", ErrRequest, r.Rate, r.Jobs, mostJobs)
	}
	r.Jobs = max(r.Jobs, 1)
	r.Paths, err = cleanPaths(r.Paths)
	return err
}

// Event is the progress of a request.
type Event struct {
	Path  string `json:"path"` // the file that was worked on last; empty: none yet
	ID    string `json:"id,omitempty"`
	Kind  string `json:"kind"`   // "encrypt", "decrypt", "deep", or "rekey": the KEK alone
	Bytes int64  `json:"bytes"`  // of the request, done
	Of    int64  `json:"of"`     // of the request, as planned
	Files int64  `json:"files"`  // as planned
	Moved int64  `json:"moved"`  // files
	Rate  int64  `json:"rate"`   // bytes a second, over the whole request
	Left  int64  `json:"left_s"` // seconds; 0: not known
}

// Summary is what came of a request.
type Summary struct {
	Moved int64 `json:"moved"`     // files
	Bytes int64 `json:"bytes"`     // of them
	Left  int64 `json:"remaining"` // files that differ, or did not move
	wire.Rest
}
