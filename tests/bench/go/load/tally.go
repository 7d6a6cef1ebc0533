package main

import (
	"math/bits"
	"time"
)

// fine is how many buckets share one power of two, so that a percentile is at most 1.6 % off.
const fine = 64

// tally counts the calls of one kind and their latencies, in buckets that widen like HdrHistogram's.
type tally struct {
	calls, replayed, failed int
	buckets                 [40 * fine]int
	most                    time.Duration
}

func (t *tally) count(spent time.Duration, replayed, failed bool) {
	if failed {
		t.failed++
		return
	}
	t.calls++
	if replayed {
		t.replayed++
	}
	if spent > t.most {
		t.most = spent
	}
	t.buckets[bucket(spent.Microseconds())]++
}

func (t *tally) add(other *tally) {
	t.calls += other.calls
	t.replayed += other.replayed
	t.failed += other.failed
	if other.most > t.most {
		t.most = other.most
	}
	for i, n := range other.buckets {
		t.buckets[i] += n
	}
}

func (t *tally) summary() map[string]interface{} {
	return map[string]interface{}{
		"calls": t.calls, "replayed": t.replayed, "failed": t.failed,
		"p50_ms": t.percentile(0.50), "p99_ms": t.percentile(0.99),
		"p999_ms": t.percentile(0.999), "max_ms": float64(t.most.Microseconds()) / 1000,
	}
}

// percentile returns the upper end of the bucket that holds the call of that rank, in ms.
func (t *tally) percentile(share float64) float64 {
	rank, seen := int(share*float64(t.calls)), 0
	for i, n := range t.buckets {
		if seen += n; n > 0 && seen > rank {
			return float64(upper(i)) / 1000
		}
	}
	return float64(t.most.Microseconds()) / 1000
}

func bucket(micros int64) int {
	if micros < fine {
		return int(micros)
	}
	power := bits.Len64(uint64(micros)) - 7 // fine is 2^6
	return (power+1)*fine + int(micros>>uint(power)) - fine
}

func upper(index int) int64 {
	if index < fine {
		return int64(index)
	}
	power := index/fine - 1
	return int64(index%fine+fine+1)<<uint(power) - 1
}
