package wasm

import (
	"encoding/binary"
	"math"
)

// strings stores a list of strings, each ended by NUL, and pointers to them.
func (x *execution) strings(list []string, ptrs, buf uint32) errno {
	for _, s := range list {
		b, in := x.bytes(buf, uint32(len(s)+1))
		if !in {
			return eFAULT
		}
		copy(b, s)
		b[len(s)] = 0
		if e := x.put32(ptrs, buf); e != ok {
			return e
		}
		ptrs += 4
		buf += uint32(len(s) + 1)
		x.chargeBytes(len(s))
	}
	return ok
}

func (x *execution) stringSizes(list []string, count, size uint32) errno {
	total := 0
	for _, s := range list {
		total += len(s) + 1
	}
	if e := x.put32(count, uint32(len(list))); e != ok {
		return e
	}
	return x.put32(size, uint32(total))
}

func argsGet(x *execution, a *arguments) errno { return x.strings(x.req.Args, a.u32(0), a.u32(1)) }
func argsSizesGet(x *execution, a *arguments) errno {
	return x.stringSizes(x.req.Args, a.u32(0), a.u32(1))
}
func environGet(x *execution, a *arguments) errno { return x.strings(x.req.Env, a.u32(0), a.u32(1)) }
func environSizesGet(x *execution, a *arguments) errno {
	return x.stringSizes(x.req.Env, a.u32(0), a.u32(1))
}

// The clocks of WASI: all of them run on the guest's own work.
const (
	clockRealtime  = 0
	clockMonotonic = 1
	clockCount     = 4 // with those of process and thread time
)

func clockResGet(x *execution, a *arguments) errno {
	if a.u32(0) >= clockCount {
		return eINVAL
	}
	return x.put64(a.u32(1), 1)
}

// clock returns the virtual time on a clock: one nanosecond for each operation
// executed, plus what the guest slept.
func (x *execution) clock(id uint32) uint64 {
	now := uint64(x.now())
	if id == clockRealtime {
		return EpochSeconds*1e9 + now
	}
	return now
}

func clockTimeGet(x *execution, a *arguments) errno {
	if a.u32(0) >= clockCount {
		return eINVAL
	}
	return x.put64(a.u32(2), x.clock(a.u32(0)))
}

func schedYield(*execution, *arguments) errno { return ok }

func randomGet(x *execution, a *arguments) errno {
	b, in := x.bytes(a.u32(0), a.u32(1))
	if !in {
		return eFAULT
	}
	if x.chargeBytes(len(b)); x.stopped() {
		return eIO
	}
	x.random.Read(b)
	return ok
}

// The layout of poll_oneoff's records.
const (
	subscriptionSize = 48
	eventSize        = 32
	eventClock       = 0
	eventFdRead      = 1
	eventFdWrite     = 2
	clockAbsolute    = 1
)

// pollOneoff waits without waiting: files are always ready, and if only clocks
// are asked for, virtual time jumps to the earliest.
func pollOneoff(x *execution, a *arguments) errno {
	in, out, n := a.u32(0), a.u32(1), a.u32(2)
	if n == 0 || n > maxSubscriptions {
		return eINVAL
	}
	subs, inside := x.bytes(in, n*subscriptionSize)
	if !inside {
		return eFAULT
	}
	if _, inside := x.bytes(out, n*eventSize); !inside {
		return eFAULT
	}
	x.chargeBytes(len(subs))
	wait, ready := int64(math.MaxInt64), false
	for i := uint32(0); i < n; i++ {
		s := subs[i*subscriptionSize : (i+1)*subscriptionSize]
		switch s[8] {
		case eventClock:
			if binary.LittleEndian.Uint32(s[16:]) < clockCount {
				wait = min(wait, x.delay(s))
			} else {
				ready = true // an error is an event
			}
		case eventFdRead, eventFdWrite:
			ready = true
		default:
			return eINVAL
		}
	}
	if ready {
		wait = 0
	}
	if wait > math.MaxInt64-x.slept {
		wait = math.MaxInt64 - x.slept
	}
	// What is due is decided before the events overwrite memory that may
	// overlap with the subscriptions.
	due := make([]byte, 0, n*eventSize)
	for i := uint32(0); i < n; i++ {
		s := subs[i*subscriptionSize : (i+1)*subscriptionSize]
		if ev, is := x.event(s, wait); is {
			due = append(due, ev[:]...)
		}
	}
	x.slept += wait
	b, _ := x.bytes(out, uint32(len(due)))
	copy(b, due)
	return x.put32(a.u32(3), uint32(len(due)/eventSize))
}

// delay returns how many nanoseconds remain until a clock subscription is due.
func (x *execution) delay(s []byte) int64 {
	timeout := binary.LittleEndian.Uint64(s[24:])
	if binary.LittleEndian.Uint16(s[40:])&clockAbsolute != 0 {
		now := x.clock(binary.LittleEndian.Uint32(s[16:]))
		timeout -= min(timeout, now)
	}
	return int64(min(timeout, math.MaxInt64))
}

// event returns the event of a subscription that is due after wait nanoseconds.
func (x *execution) event(s []byte, wait int64) (ev [eventSize]byte, due bool) {
	copy(ev[:8], s[:8]) // userdata
	ev[10] = s[8]
	if s[8] == eventClock {
		if binary.LittleEndian.Uint32(s[16:]) >= clockCount {
			binary.LittleEndian.PutUint16(ev[8:], uint16(eINVAL))
			return ev, true
		}
		return ev, x.delay(s) <= wait
	}
	d, e := x.descriptor(binary.LittleEndian.Uint32(s[16:]))
	var size int64
	if e == ok && s[8] == eventFdRead {
		if d.node != nil && !d.node.isDir() {
			size = max(0, x.sizeOfNode(d.node)-d.offset)
		} else if d.std == 0 {
			binary.LittleEndian.PutUint16(ev[24:], 1) // hung up: stdin is at its end
		}
	}
	binary.LittleEndian.PutUint16(ev[8:], uint16(e))
	binary.LittleEndian.PutUint64(ev[16:], uint64(size))
	return ev, true
}
