// The load: so many callers, each of which asks again as soon as it is answered.
//
// It prints "measuring" when the warm-up is over and a JSON object at the end; whoever started it
// reads the servers' counters at these two moments.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type settings struct {
	protocol, target, mix, headers, run string
	callers, connections, users, rows   int
	warmup, measure                     time.Duration
}

// client sends one ask and says whether the answer was given before (a replay).
type client interface {
	send(*ask) (replayed bool, err error)
}

func main() {
	set := parse()
	headers := map[string]string{}
	if err := json.Unmarshal([]byte(set.headers), &headers); err != nil {
		log.Fatal("-headers: ", err)
	}
	clients := dial(set, headers)
	var phase int32 // 0 warming up, 1 measuring, 2 over
	callers := make([]*caller, set.callers)
	var all sync.WaitGroup
	for i := range callers {
		callers[i] = newCaller(set, i, clients[i%len(clients)])
		all.Add(1)
		go func(c *caller) { defer all.Done(); c.work(&phase) }(callers[i])
	}
	time.Sleep(set.warmup)
	atomic.StoreInt32(&phase, 1)
	started, spent := time.Now(), processor()
	fmt.Println("measuring")
	time.Sleep(set.measure)
	atomic.StoreInt32(&phase, 2)
	seconds, used := time.Since(started).Seconds(), processor()-spent
	all.Wait()
	report(callers, seconds, used.Seconds())
}

func parse() (set settings) {
	flag.StringVar(&set.protocol, "protocol", "grpc", "grpc or rest")
	flag.StringVar(&set.target, "target", "", "host:port")
	flag.StringVar(&set.mix, "mix", "create=50,recent=50", "kinds of calls and their weights")
	flag.StringVar(&set.headers, "headers", "{}", "headers of every call, as a JSON object")
	flag.StringVar(&set.run, "run", "r", "makes the order numbers of this run unique")
	flag.IntVar(&set.callers, "callers", 64, "calls in flight")
	flag.IntVar(&set.connections, "connections", 4, "gRPC connections; REST has one per caller")
	flag.IntVar(&set.users, "users", 1000, "customers in the store")
	flag.IntVar(&set.rows, "rows", 1000, "stock rows in the store")
	flag.DurationVar(&set.warmup, "warmup", time.Second, "not measured")
	flag.DurationVar(&set.measure, "measure", 4*time.Second, "measured")
	flag.Parse()
	return set
}

func dial(set settings, headers map[string]string) []client {
	count := set.callers
	if set.protocol == "grpc" {
		count = set.connections
	}
	clients := make([]client, count)
	for i := range clients {
		if set.protocol == "grpc" {
			clients[i] = dialGRPC(set.target, headers)
		} else {
			clients[i] = &restClient{target: set.target, headers: headers, out: new(bytes.Buffer)}
		}
	}
	return clients
}

// processor returns the processor time that this process has used.
func processor() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func report(callers []*caller, seconds, cpu float64) {
	kinds := map[string]*tally{}
	failures := []string{}
	for _, c := range callers {
		for name, t := range c.tallies {
			if kinds[name] == nil {
				kinds[name] = &tally{}
			}
			kinds[name].add(t)
		}
		if c.failure != "" && len(failures) < 5 {
			failures = append(failures, c.failure)
		}
	}
	summary := map[string]interface{}{}
	for name, t := range kinds {
		summary[name] = t.summary()
	}
	json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"seconds": seconds, "cpu_seconds": cpu, "kinds": summary, "failures": failures,
	})
}
