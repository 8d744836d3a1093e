package admin

// Place says whether the mount is still at its mountpoint.
type Place struct {
	Gone   bool     `json:"gone"`              // unmounted, and kept by somebody
	KeptBy []string `json:"kept_by,omitempty"` // the known holders of a mount that is gone from its place
}
