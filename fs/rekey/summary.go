package rekey

import (
	"time"

	"vmcryptfs/fs/wire"
	"vmcryptfs/fs/work"
)

// Event tells how far Run is: once before the first file, and after each. The first one has
// the target KEK: whoever asked for a new key knows it then, whatever ends the rekey later.
type Event struct {
	wire.KeyName        // of the target KEK; empty: lockers are dropped only
	Created      bool   `json:"created"` // at the KMS, by this run
	Current      bool   `json:"current"` // it became the datastore's current KEK in this run
	Path         string `json:"-"`       // the last file; empty: none yet
	Pass         int    `json:"pass"`    // from 1
	Done         int64  `json:"done"`    // files looked at in this pass, clear ones too
	Total        int64  `json:"total"`   // files to be looked at in a pass; 0: not counted yet
	Files        int64  `json:"files"`   // encrypted files seen in this pass
	Rekeyed      int64  `json:"rekeyed"` // in all passes
	Failed       int64  `json:"failed"`  // in this pass
}

// Status is a rekey under way, as the status of its mount has it.
type Status struct {
	Since     time.Time     `json:"since"`
	Target    *wire.KeyName `json:"target,omitempty"` // nil: lockers are dropped only, or none is chosen yet
	Pass      int           `json:"pass"`             // 0: the keys are looked at
	Done      int64         `json:"done"`             // files looked at in this pass
	Total     int64         `json:"total"`            // files in a pass; 0: not counted yet
	Rekeyed   int64         `json:"rekeyed"`          // in all passes
	Failed    int64         `json:"failed"`           // in this pass
	work.Peer               // who asked for it
}

// NewStatus is the status of the rekey that a Runner tells of.
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

// Summary is what was done. Its Rest is of the last pass.
type Summary struct {
	wire.KeyName       // of the target KEK; empty: only dropped
	Created      bool  `json:"created"` // at the KMS, by this run
	Current      bool  `json:"current"` // it became the datastore's current KEK in this run
	Files        int64 `json:"files"`   // encrypted files in the last pass
	Already      int64 `json:"already"` // of the first pass, with nothing to do
	Rekeyed      int64 `json:"rekeyed"` // rewritten, in all passes
	Clear        int64 `json:"clear"`   // files that are not encrypted, in the last pass
	Passes       int   `json:"passes"`  // over everything asked for
	wire.Rest
}
