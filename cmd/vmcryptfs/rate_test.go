package main

import "testing"

func TestParseRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"": 0, "1": 1, "512": 512, "4K": 4 << 10, "50M": 50 << 20, "50m": 50 << 20, "1.5GiB/s": 3 << 29, "2 MB/s": 2 << 20, "1T": 1 << 40, "10B": 10,
	} {
		if got, err := parseRate(text); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"0", "-1", "M", "fast", "1e30", "NaN", "Inf", "1X", "B", "0.1"} {
		if got, err := parseRate(text); err == nil {
			t.Errorf("%q is %d, want an error", text, got)
		}
	}
}
