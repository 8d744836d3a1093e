package daemon

import "runtime/debug"

// Version is the version that the Go tool stamped on this program: a tag, or one
// made of the commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
