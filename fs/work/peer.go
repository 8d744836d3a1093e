package work

// Peer is the process that asked for a work, as the kernel noted the process on connection
// (unix(7), SO_PEERCRED).
type Peer struct {
	UID uint32 `json:"uid"`
	PID int32  `json:"pid"` // 0: of another pid namespace
}
