package admin

// Place says whether the mount is where it was made.
type Place struct {
	Gone   bool     `json:"gone"`              // unmounted, and kept by somebody
	KeptBy []string `json:"kept_by,omitempty"` // by whom, as far as that is known
}
