package main

import (
	"fmt"
	"log"
	"math/rand"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// replays is the share of writes that are sent a second time, as a client does that lost an answer.
const replays = 0.02

// ask is one call in plain values; the clients put it into messages or JSON.
type ask struct {
	kind, store, number, user, key string
	userID                         int32
	cents                          int
	rows                           []int // stock rows of the lines
}

func (a *ask) total() float64 { return float64(a.cents) / 100 }

// optionCode is the option of a stock row; the store was filled with the same codes.
func optionCode(row int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", row) }

type weight struct {
	kind string
	upTo int
}

// caller asks, waits, and asks again.
type caller struct {
	client  client
	random  *rand.Rand
	weights []weight
	tallies map[string]*tally
	failure string
	prefix  string
	made    int
	users   int
	rows    int
	last    map[string]*ask
}

func newCaller(set settings, index int, client client) *caller {
	c := &caller{
		client:  client,
		random:  rand.New(rand.NewSource(time.Now().UnixNano() + int64(index))),
		tallies: map[string]*tally{},
		prefix:  fmt.Sprintf("%s-%d-", set.run, index),
		users:   set.users,
		rows:    set.rows,
		last:    map[string]*ask{},
	}
	total := 0
	for _, part := range strings.Split(set.mix, ",") {
		pair := strings.SplitN(part, "=", 2)
		share, err := strconv.Atoi(pair[len(pair)-1])
		if err != nil || len(pair) != 2 {
			log.Fatal("-mix must be kind=weight,…: ", set.mix)
		}
		total += share
		c.weights = append(c.weights, weight{pair[0], total})
		c.tallies[pair[0]] = &tally{}
	}
	return c
}

// work runs until the phase is 2, and counts the calls that began and ended in phase 1.
func (c *caller) work(phase *int32) {
	for atomic.LoadInt32(phase) < 2 {
		one := c.next()
		counted := atomic.LoadInt32(phase) == 1
		started := time.Now()
		replayed, err := c.client.send(one)
		spent := time.Since(started)
		if err != nil {
			c.failure = one.kind + ": " + err.Error()
		}
		if counted && atomic.LoadInt32(phase) == 1 {
			c.tallies[one.kind].count(spent, replayed, err != nil)
		}
	}
}

func (c *caller) next() *ask {
	pick := c.random.Intn(c.weights[len(c.weights)-1].upTo)
	kind := ""
	for _, w := range c.weights {
		if pick < w.upTo {
			kind = w.kind
			break
		}
	}
	if kind != "recent" {
		if again := c.last[kind]; again != nil && c.random.Float64() < replays {
			return again
		}
	}
	one := c.fresh(kind)
	c.last[kind] = one
	return one
}

func (c *caller) fresh(kind string) *ask {
	c.made++
	user := c.random.Intn(c.users)
	one := &ask{
		kind: kind, store: "store" + strconv.Itoa(user%8), user: "user" + strconv.Itoa(user),
		userID: int32(user + 1), number: c.prefix + strconv.Itoa(c.made),
		cents: 100 + c.random.Intn(100000), key: c.uuid(),
	}
	switch kind {
	case "lines": // three lines of stock, spread
		one.rows = []int{c.random.Intn(c.rows), c.random.Intn(c.rows), c.random.Intn(c.rows)}
	case "spread":
		one.rows = []int{c.random.Intn(c.rows)}
	case "hot":
		one.rows = []int{0}
	}
	return one
}

func (c *caller) uuid() string {
	a, b := c.random.Uint64(), c.random.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0xfff, b&0xffffffffffff)
}
