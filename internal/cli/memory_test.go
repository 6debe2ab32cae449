package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// The first collection comes late, those after it as ever; GOGC is kept to.
func TestCollectLate(t *testing.T) {
	was := debug.SetGCPercent(100)
	defer debug.SetGCPercent(was)
	percent := func() int {
		read := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(read)
		return int(read[0].Value.Uint64())
	}
	t.Setenv("GOGC", "50")
	collectLate()
	if got := percent(); got != 100 {
		t.Errorf("with GOGC: %d", got)
	}
	t.Setenv("GOGC", "")
	collectLate()
	if got := percent(); got != firstGC {
		t.Errorf("at the start: %d", got)
	}
	deadline := time.Now().Add(20 * time.Second)
	for runtime.GC(); percent() != 100; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatalf("after a collection: %d", percent())
		}
	}
}
