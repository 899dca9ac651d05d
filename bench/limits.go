package main

import (
	"crypto/sha256"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

// measured is how long each limit is measured.
const measured = time.Second

// sha256Speed is how many bytes a second this machine hashes with the given
// number of goroutines. Nothing that checks content can be faster.
func sha256Speed(goroutines int) float64 {
	var wg sync.WaitGroup
	counts := make([]int64, goroutines)
	start := time.Now()
	for i := range counts {
		wg.Go(func() {
			buf := make([]byte, 1<<20)
			for time.Since(start) < measured {
				sha256.Sum256(buf)
				counts[i] += int64(len(buf))
			}
		})
	}
	wg.Wait()
	total := int64(0)
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(start).Seconds()
}

// loopbackSpeed is how many bytes a second go through one TCP connection over
// loopback, without encryption or checks.
func loopbackSpeed() (float64, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 1<<20)
		for {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	buf := make([]byte, 1<<20)
	total := int64(0)
	start := time.Now()
	for time.Since(start) < measured {
		n, err := io.ReadFull(c, buf)
		total += int64(n)
		if err != nil {
			return 0, err
		}
	}
	return float64(total) / time.Since(start).Seconds(), nil
}

// roundTrip is how long a byte takes to the other end of a TCP connection over
// loopback and back.
func roundTrip() (times, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c) // until the other end closes
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var t times
	b := make([]byte, 1)
	for range 2000 {
		start := time.Now()
		if _, err := c.Write(b); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return nil, err
		}
		t = append(t, time.Since(start))
	}
	return t, nil
}

// diskSpeed is how many bytes a second go into a new file that is synced.
func diskSpeed(dir string) (float64, error) {
	f, err := os.CreateTemp(dir, "disk")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	const size = 256 << 20
	buf := make([]byte, 1<<20)
	start := time.Now()
	for range size / len(buf) {
		if _, err := f.Write(buf); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	return size / time.Since(start).Seconds(), nil
}

// cores is how many goroutines run at once here.
func cores() int { return runtime.GOMAXPROCS(0) }
