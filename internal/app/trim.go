package app

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	trimEvery = 2 * time.Second
	trimQuiet = 3 << 19  // bytes allocated in that time by a process that has little to do
	trimWorth = 12 << 20 // bytes that can be garbage or are free; giving back less is not worth a collection
)

// trimmer decides when memory is given back.
type trimmer struct {
	before  uint64 // allocated at the last look
	trimmed uint64 // allocated when memory was last given back
}

// due is asked every trimEvery: allocated is what the process has ever allocated, free what it has and does not use.
func (t *trimmer) due(allocated, free uint64) bool {
	quiet := allocated-t.before < trimQuiet
	t.before = allocated
	if !quiet || allocated-t.trimmed+free < trimWorth {
		return false
	}
	t.trimmed = allocated
	return true
}

// trim gives memory back when the process has come to rest after a rush, such as thousands of connections at once. The
// collector by itself does little then: it runs when the heap has doubled, and keeps what it has freed for the next rush.
func trim(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	var t trimmer
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
		metrics.Read(samples)
		if t.due(samples[0].Value.Uint64(), samples[1].Value.Uint64()) {
			debug.FreeOSMemory() // collects first
		}
	}
}
