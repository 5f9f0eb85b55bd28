package xsk

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// fakeRing is memory as the kernel would map it, on the Go heap so that the race detector
// watches it. Both counters start at start. It returns the view of each side.
func fakeRing(size int, start uint32) (producer, consumer *ring) {
	off := unix.XDPRingOffset{Producer: 0, Consumer: 64, Flags: 128, Desc: 192}
	words := make([]uint64, (int(off.Desc)+size*int(unsafe.Sizeof(Desc{})))/8)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)
	*(*uint32)(unsafe.Pointer(&mem[off.Producer])) = start
	*(*uint32)(unsafe.Pointer(&mem[off.Consumer])) = start
	producer, consumer = new(ring), new(ring)
	producer.view(mem, off, uint32(size))
	consumer.view(mem, off, uint32(size))
	return producer, consumer
}

// nearWrap is a counter value whose increments soon pass 2^32.
const nearWrap = ^uint32(0) - 1000

// TestRingConcurrentDescs moves descriptors between two goroutines. Under -race, a
// missing acquire or release shows as a race on the entries.
func TestRingConcurrentDescs(t *testing.T) {
	p, c := fakeRing(64, nearWrap)
	const count = 50_000
	done := make(chan struct{})
	go func() {
		defer close(done)
		batch := make([]Desc, 0, 24)
		for next := uint64(0); next < count; {
			batch = batch[:0]
			for i := next; i < min(next+uint64(1+next%24), count); i++ {
				batch = append(batch, Desc{Addr: i, Len: uint32(i * 3), Options: uint32(i) ^ 7})
			}
			n := p.putDescs(batch)
			next += uint64(n)
			if n < len(batch) {
				runtime.Gosched()
			}
		}
	}()
	got := make([]Desc, 17)
	for next := uint64(0); next < count; {
		n := c.getDescs(got)
		for _, d := range got[:n] {
			if want := (Desc{Addr: next, Len: uint32(next * 3), Options: uint32(next) ^ 7}); d != want {
				t.Fatalf("descriptor %d: got %+v, want %+v", next, d, want)
			}
			next++
		}
		if n == 0 {
			runtime.Gosched()
		}
	}
	<-done
	qt.Assert(t, qt.Equals(p.unconsumed(), 0))
}

func TestRingConcurrentAddrs(t *testing.T) {
	p, c := fakeRing(32, nearWrap)
	const count, shift = 50_000, 11
	done := make(chan struct{})
	go func() {
		defer close(done)
		for next := uint32(0); next < count; {
			n := p.putFrames([]uint32{next}, shift)
			if n == 1 && next+2 < count {
				next++
				n = p.putAddrs([]uint64{uint64(next) << shift, uint64(next+1) << shift})
			}
			next += uint32(n)
			if n == 0 {
				runtime.Gosched()
			}
		}
	}()
	got := make([]uint64, 9)
	for next := uint64(0); next < count; {
		n := c.getAddrs(got)
		for _, a := range got[:n] {
			if a != next<<shift {
				t.Fatalf("address %d: got %#x", next, a)
			}
			next++
		}
		if n == 0 {
			runtime.Gosched()
		}
	}
	<-done
}

// TestRingModel compares a ring with a queue of limited length.
func TestRingModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := 1 << rapid.IntRange(0, 6).Draw(t, "log2 size")
		p, c := fakeRing(size, rapid.Uint32().Draw(t, "start"))
		var model []uint64
		next := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				in := make([]uint64, rapid.IntRange(0, 2*size).Draw(t, "put"))
				for i := range in {
					in[i] = next + uint64(i)
				}
				n := p.putAddrs(in)
				if want := min(len(in), size-len(model)); n != want {
					t.Fatalf("put %d of %d, want %d", n, len(in), want)
				}
				model = append(model, in[:n]...)
				next += uint64(n)
			},
			"get": func(t *rapid.T) {
				out := make([]uint64, rapid.IntRange(0, 2*size).Draw(t, "get"))
				n := c.getAddrs(out)
				if want := min(len(out), len(model)); n != want {
					t.Fatalf("got %d for %d, want %d", n, len(out), want)
				}
				for i, a := range out[:n] {
					if a != model[i] {
						t.Fatalf("entry %d is %d, want %d", i, a, model[i])
					}
				}
				model = model[n:]
			},
			"": func(t *rapid.T) {
				if n := int(p.unconsumed()); n != len(model) {
					t.Fatalf("%d unconsumed, want %d", n, len(model))
				}
				if n := int(c.available(uint32(size))); n != len(model) {
					t.Fatalf("%d available, want %d", n, len(model))
				}
			},
		})
	})
}

func TestRingOfNoSize(t *testing.T) {
	var r ring
	r.reset()
	qt.Check(t, qt.Equals(r.putAddrs([]uint64{1}), 0))
	qt.Check(t, qt.Equals(r.getAddrs(make([]uint64, 1)), 0))
	qt.Check(t, qt.Equals(r.putDescs(make([]Desc, 1)), 0))
	qt.Check(t, qt.Equals(r.getDescs(make([]Desc, 1)), 0))
	qt.Check(t, qt.Equals(r.putFrames([]uint32{1}, 11), 0))
	qt.Check(t, qt.IsFalse(r.needsWakeup()))
	qt.Check(t, qt.IsNil(r.destroy()))
}

// TestLayouts pins the sizes that the kernel expects.
func TestLayouts(t *testing.T) {
	qt.Check(t, qt.Equals(unsafe.Sizeof(Desc{}), unsafe.Sizeof(unix.XDPDesc{})))
	qt.Check(t, qt.Equals(unsafe.Sizeof(TxMetadata{}), 24))
	qt.Check(t, qt.Equals(unsafe.Offsetof(TxMetadata{}.CsumStart), 8))
	qt.Check(t, qt.Equals(unsafe.Offsetof(TxMetadata{}.CsumOffset), 10))
	qt.Check(t, qt.Equals(unsafe.Offsetof(TxMetadata{}.LaunchTime), 16))
}
