// memory_leak_simulator in Go: options, output and rules as in native/simulator.c.
package main

/*
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
__attribute__((noinline)) static void site_cgo(size_t size)
{
	void *block = malloc(size);
	if (block)
		memset(block, 1, size);
	__asm__ volatile("" : : "r"(block) : "memory");
}
static void die_with_parent(void) { prctl(PR_SET_PDEATHSIG, SIGKILL); }
*/
import "C"

import (
	"fmt"
	"math/rand"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const limitBytes = 2 << 30

var (
	random      *rand.Rand
	started     time.Time
	rate        = 1e6
	leakedBytes int64
	leakedCount int64
	heldBytes   int64
	work        int64
	sink        []byte
)

func elapsed() float64 { return time.Since(started).Seconds() }
func owed() int64      { return int64(rate*elapsed()) - leakedBytes }
func fail(words string) {
	fmt.Fprintln(os.Stderr, "memory_leak_simulator: "+words)
	os.Exit(2)
}
func leaked(n int) {
	leakedBytes += int64(n)
	leakedCount++
	if leakedBytes+heldBytes > limitBytes {
		fail("would hold more than 2 GB; stopped")
	}
}

var requests [256][]byte

// churn is the background work: short-lived garbage and a few hundred buffers in use.
func churn(n int) {
	for i := 0; i < n; i++ {
		requests[random.Intn(256)] = make([]byte, 32+random.Intn(1500))
	}
	work += int64(n)
}

var kept [][]byte

//go:noinline
func siteSlice() {
	size := 200 + random.Intn(3000)
	kept = append(kept, fill(make([]byte, size)))
	leaked(size)
}

var byKey = map[uint64]string{}

//go:noinline
func siteMap() {
	size := 100 + random.Intn(900)
	byKey[random.Uint64()] = string(fill(make([]byte, size)))
	leaked(size + 60)
}

//go:noinline
func siteGoroutine() {
	never := make(chan int)
	go waitFor(never, fill(make([]byte, 4000)))
	leaked(4000 + 2048 + 96)
}

//go:noinline
func waitFor(never chan int, body []byte) {
	<-never
	sink = body
}

var tickers []*time.Ticker

//go:noinline
func siteTicker() {
	ticker := time.NewTicker(time.Hour)
	body := fill(make([]byte, 2000))
	go func() {
		<-ticker.C
		sink = body
	}()
	tickers = append(tickers, ticker)
	leaked(2000 + 2048 + 300)
}

//go:noinline
func siteSubslice() { // sixteen bytes are wanted, the whole line stays
	line := fill(make([]byte, 4000))
	kept = append(kept, line[:16])
	leaked(4000)
}

//go:noinline
func siteCgo() {
	size := 200 + random.Intn(3000)
	C.site_cgo(C.size_t(size))
	leaked(size)
}

func fill(block []byte) []byte {
	for i := range block {
		block[i] = 1
	}
	return block
}

func paced(site func()) func() {
	return func() {
		for owed() > 6200 {
			site()
			work++
		}
	}
}

// --- healthy ---

var tree [][]byte

func stepDoubling() { // 30 MB live, and much garbage: the heap goes up to twice that before it is collected
	for len(tree) < 15000 {
		tree = append(tree, fill(make([]byte, 2000)))
	}
	for i := 0; i < 40; i++ {
		tree[random.Intn(len(tree))] = fill(make([]byte, 2000))
	}
	sink = make([]byte, 20000)
}

var nPut float64

func stepCache() { // full after 20 s
	for ; nPut < elapsed()*400; nPut++ {
		slot := int(nPut) % 8000
		if len(tree) <= slot {
			tree = append(tree, nil)
		}
		tree[slot] = fill(make([]byte, 1000+random.Intn(3000)))
	}
}

var pool = sync.Pool{New: func() any { return new([16384]byte) }}

func stepPool() {
	var taken []*[16384]byte
	for i := 0; i < 200+random.Intn(400); i++ {
		buffer := pool.Get().(*[16384]byte)
		buffer[0] = 1
		taken = append(taken, buffer)
	}
	for _, buffer := range taken {
		pool.Put(buffer)
	}
}

var nWorkers float64

func stepGoroutines() { // goroutines come and go, some hundred at a time
	for ; nWorkers < elapsed()*100; nWorkers++ {
		go func(body []byte, napS float64) {
			time.Sleep(time.Duration(napS * float64(time.Second)))
			body[0] = 2
		}(fill(make([]byte, 8000)), 4*random.ExpFloat64())
	}
}

func stepNothing() {}

var leaking = map[string]func(){
	"go_slice":     paced(siteSlice),
	"go_map":       paced(siteMap),
	"go_goroutine": paced(siteGoroutine),
	"go_ticker":    paced(siteTicker),
	"go_subslice":  paced(siteSubslice),
	"go_cgo":       paced(siteCgo),
}
var healthy = map[string]func(){
	"go_steady":     stepNothing,
	"go_doubling":   stepDoubling,
	"go_cache20":    stepCache,
	"go_pool":       stepPool,
	"go_goroutines": stepGoroutines,
}

func rateOf(text string) float64 {
	units := []struct {
		name  string
		bytes float64
	}{{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1}, {"", 1}}
	amount, per, _ := strings.Cut(text, "/")
	seconds := 1.0
	if strings.HasSuffix(per, "min") {
		minutes, err := strconv.Atoi(strings.TrimSuffix(per, "min"))
		if err != nil || minutes <= 0 {
			fail("--leak-rate wants a number and a unit, like 10MB/s or 5MB/5min")
		}
		seconds = 60 * float64(minutes)
	} else if per != "" && per != "s" {
		fail("--leak-rate wants a number and a unit, like 10MB/s or 5MB/5min")
	}
	for _, unit := range units {
		if number, err := strconv.ParseFloat(strings.TrimSuffix(amount, unit.name), 64); err == nil && strings.HasSuffix(amount, unit.name) {
			return number * unit.bytes / seconds
		}
	}
	fail("--leak-rate wants a number and a unit, like 10MB/s or 5MB/5min")
	return 0
}

func anonymousBytes() int64 {
	status, _ := os.ReadFile("/proc/self/status")
	var kib int64
	for _, line := range strings.Split(string(status), "\n") {
		fmt.Sscanf(line, "RssAnon: %d", &kib)
	}
	return kib * 1024
}

func main() {
	C.die_with_parent() // of the main thread of the parent; this thread stays the one that asked
	runtime.LockOSThread()
	kind, duration, seed, churnPerS := "", 60.0, int64(1), 3000.0
	for i := 1; i+1 < len(os.Args); i += 2 {
		value := os.Args[i+1]
		number, err := strconv.ParseFloat(value, 64)
		switch os.Args[i] {
		case "--kind":
			kind, err = value, nil
		case "--leak-rate":
			rate, err = rateOf(value), nil
		case "--duration":
			duration = number
		case "--seed":
			seed = int64(number)
		case "--churn":
			churnPerS = number
		default:
			fail("options: --kind K --leak-rate 10MB/s --duration S --seed N --churn REQUESTS_PER_S")
		}
		if err != nil {
			fail(os.Args[i] + " wants a number")
		}
	}
	step, leaks := leaking[kind]
	if !leaks {
		step = healthy[kind]
	}
	if step == nil {
		fail("this program has no such --kind")
	}
	if leaks && rate*duration > limitBytes {
		fail("this rate would leak more than 2 GB in this duration")
	}
	random = rand.New(rand.NewSource(seed))
	started = time.Now()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	fmt.Printf("{\"ready\": true, \"pid\": %d}\n", os.Getpid())
	done := 0.0
	for elapsed() < duration && len(stop) == 0 {
		due := elapsed()*churnPerS - done
		done = elapsed() * churnPerS
		churn(int(min(due, churnPerS/10)))
		step()
		time.Sleep(10 * time.Millisecond)
	}
	var used syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	cpu := float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
	fmt.Printf("{\"kind\": \"%s\", \"leaks\": %t, \"leaked_bytes\": %d, \"leaked_blocks\": %d, \"held_bytes\": %d, "+
		"\"work\": %d, \"cpu_s\": %.3f, \"wall_s\": %.3f, \"anon_bytes\": %d}\n",
		kind, leaks, leakedBytes, leakedCount, heldBytes, work, cpu, elapsed(), anonymousBytes())
}
