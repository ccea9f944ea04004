package image

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for v, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "1700000000": time.Unix(1700000000, 0), "2025-01-01T00:00:00Z": time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		t.Run(v, func(t *testing.T) {
			if got, err := parseTime(v, now); err != nil || !got.Equal(want) {
				t.Errorf("%s: %v, %v", v, got, err)
			}
		})
	}
	if _, err := parseTime("soon", now); err == nil {
		t.Error("no time")
	}
}
