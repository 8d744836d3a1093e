package words

import (
	"fmt"
	"time"
)

// Size gives n bytes in the greatest binary unit that n reaches: "1.5 GiB".
func Size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(binaryPrefixes)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, binaryPrefixes[unit])
}

const binaryPrefixes = "KMGTPE"

// Age gives a duration in its two greatest units: "1 h 5 min". A negative duration is "0 s".
func Age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

// Date gives a time to the minute in UTC, as errors of keys/kmip do: "2026-01-31 09:05 UTC".
// The zero time is a dash.
func Date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}
