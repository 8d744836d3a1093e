package main

import (
	"math"
	"strconv"
	"strings"

	"vmcryptfs/advice"
)

// parseRate reads a number of bytes a second: "50M", "1.5GiB/s". The units are binary; empty: 0.
func parseRate(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	number := strings.ToUpper(strings.TrimSuffix(strings.TrimSpace(text), "/s"))
	number = strings.TrimSuffix(strings.TrimSuffix(number, "B"), "I")
	factor := 1.0
	if n := len(number); n > 0 {
		if power := strings.IndexByte("KMGT", number[n-1]); power >= 0 {
			number, factor = number[:n-1], math.Pow(1024, float64(power+1))
		}
	}
	value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if rate := value * factor; err == nil && rate >= 1 && rate < math.MaxInt64/2 {
		return int64(rate), nil
	}
	return 0, advice.New(advice.Usagef("--rate %s is no number of bytes a second", text), "for example --rate 50M")
}
