package daemon

import "runtime/debug"

// Version is the version stamped on the program by the Go tool: a tag, a version derived from the
// commit, or "unknown".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
