package rekey

import (
	"time"

	"vmcryptfs/fs/wire"
	"vmcryptfs/fs/work"
)

// Event reports the progress of Run, before the first file and after each file. The first Event
// already has the target KEK: a user who asked for a new key knows the key even if the rekey ends
// early.
type Event struct {
	wire.KeyName        // of the target KEK; empty: lockers are dropped only
	Created      bool   `json:"created"`         // this run made the key at the KMS
	Current      bool   `json:"current"`         // the key became the current KEK, of the datastore or of Place, in this run
	Place        string `json:"place,omitempty"` // the place whose own key is the target; empty: none was to get another
	Path         string `json:"-"`               // the last file; empty: none yet
	Pass         int    `json:"pass"`            // from 1
	Done         int64  `json:"done"`            // files seen in this pass, clear ones included
	Total        int64  `json:"total"`           // files to be looked at in a pass; 0: not counted yet
	Files        int64  `json:"files"`           // encrypted files seen in this pass
	Rekeyed      int64  `json:"rekeyed"`         // in all passes
	Failed       int64  `json:"failed"`          // failed files in this pass
}

// Status is a rekey under way, as part of the status of a mount.
type Status struct {
	Since     time.Time     `json:"since"`
	Target    *wire.KeyName `json:"target,omitempty"` // nil: lockers are dropped only, or none is chosen yet
	Pass      int           `json:"pass"`             // 0: the keys are looked at
	Done      int64         `json:"done"`             // files seen in this pass
	Total     int64         `json:"total"`            // files in a pass; 0: not counted yet
	Rekeyed   int64         `json:"rekeyed"`          // in all passes
	Failed    int64         `json:"failed"`           // failed files in this pass
	work.Peer               // the process that asked for the rekey
}

// NewStatus converts the status of a Runner's rekey.
func NewStatus(s work.Status[Event]) *Status {
	e := s.Last
	status := &Status{
		Since: s.Since, Pass: e.Pass, Done: e.Done, Total: e.Total, Rekeyed: e.Rekeyed, Failed: e.Failed, Peer: s.By,
	}
	if e.Identifier != "" {
		status.Target = &e.KeyName
	}
	return status
}

// Summary is the result of Run. Its Rest is of the last pass.
type Summary struct {
	wire.KeyName        // of the target KEK; empty: only dropped
	Created      bool   `json:"created"`         // this run made the key at the KMS
	Current      bool   `json:"current"`         // the key became the current KEK, of the datastore or of Place, in this run
	Place        string `json:"place,omitempty"` // the place whose own key is the target; empty: none was to get another
	Files        int64  `json:"files"`           // encrypted files in the last pass
	Already      int64  `json:"already"`         // of the first pass, with nothing to do
	Rekeyed      int64  `json:"rekeyed"`         // rewritten, in all passes
	Clear        int64  `json:"clear"`           // unencrypted files seen in the last pass
	Passes       int    `json:"passes"`          // over everything asked for
	wire.Rest
}
