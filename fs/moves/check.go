package moves

import (
	"context"
	"errors"

	"vmcryptfs/fs/wire"
)

// Check is a request for what differs. The control socket takes a Check as JSON.
type Check struct {
	Paths wire.Paths `json:"paths"` // below BACKING; "." is all
	Deep  bool       `json:"deep,omitempty"`
	Rate  int64      `json:"rate,omitempty"` // bytes a second, for the guess; 0: no limit
}

// Checked ends a check.
type Checked struct {
	Files  int64 `json:"files"`  // that differ
	Bytes  int64 `json:"bytes"`  // of them
	Extra  int64 `json:"extra"`  // the most that one of them takes meanwhile; where blocks are shared, all of them
	Shares bool  `json:"shares"` // BACKING's file system may share blocks: cutting a file may free nothing
	wire.Rest
}

// Check looks for files that differ at and below the paths of r, and calls each with every one of them.
// What could not be judged is listed in the result, which is valid also beside an error.
func (m *Manager) Check(ctx context.Context, r Check, each func(Differ) error) (sum Checked, err error) {
	if r.Paths, err = cleanPaths(r.Paths); err != nil {
		return sum, err
	}
	if err := m.config.Store.Verify(ctx, m.config.Keys); err != nil {
		return sum, err
	}
	sum.Shares = sharesBlocks(m.config.Store.Fd())
	p := plan{Config: &m.config, deep: r.Deep, rate: r.Rate, shares: sum.Shares,
		found: func(d *Differ) error {
			sum.Files++
			sum.Bytes += d.Bytes
			if sum.Shares {
				sum.Extra += d.Extra
			} else {
				sum.Extra = max(sum.Extra, d.Extra)
			}
			if err := each(*d); err != nil {
				return errors.Join(errWalk, err)
			}
			return nil
		},
		broken: func(at string, err error) error { sum.Add(at, err); return nil },
	}
	for _, at := range r.Paths {
		err := p.below(ctx, at)
		switch {
		case err == nil:
		case ctx.Err() != nil, errors.Is(err, errWalk):
			return sum, err
		default:
			sum.Add(at, err)
		}
	}
	sum.Complete = sum.Failed == 0 && sum.Files == 0
	return sum, nil
}

// cleanPaths are paths of a request: at least one, each below BACKING.
func cleanPaths(paths []string) (clean []string, err error) {
	for _, p := range paths {
		at, err := cleanPath(p)
		if err != nil {
			return nil, err
		}
		if at == "." {
			return []string{"."}, nil
		}
		clean = append(clean, at)
	}
	if len(clean) == 0 {
		clean = []string{"."}
	}
	return clean, nil
}
