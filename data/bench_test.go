package data

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// benchFile writes a file of n bytes and flushes it to disk.
func benchFile(b *testing.B, n int) string {
	p := filepath.Join(b.TempDir(), "file")
	f, err := os.Create(p)
	require.NoError(b, err)
	block := randBytes(7, 1<<20)
	for i := 0; i < n; i += len(block) {
		block[0], block[1] = byte(i>>20), byte(i>>28)
		_, err := f.Write(block)
		require.NoError(b, err)
	}
	require.NoError(b, f.Sync())
	require.NoError(b, f.Close())
	return p
}

func onDisk(b *testing.B) func(*Config) {
	return func(c *Config) {
		d, err := db.Open(b.TempDir())
		require.NoError(b, err)
		b.Cleanup(func() { d.Close() })
		c.DB = d
	}
}

const benchSize = 512 << 20

func BenchmarkIndexInPlace(b *testing.B) {
	p := benchFile(b, benchSize)
	s := newStore(b, onDisk(b))
	b.SetBytes(benchSize)
	for b.Loop() {
		_, err := s.AddPath(context.Background(), p, AddOptions{InPlace: true})
		require.NoError(b, err)
	}
}

func BenchmarkAddCopy(b *testing.B) {
	p := benchFile(b, benchSize)
	b.SetBytes(benchSize)
	for b.Loop() {
		b.StopTimer()
		s := newStore(b, onDisk(b))
		b.StartTimer()
		_, err := s.AddPath(context.Background(), p, AddOptions{})
		require.NoError(b, err)
	}
}

func BenchmarkAdd10kSmall(b *testing.B) {
	dir := b.TempDir()
	for i := range 10_000 {
		require.NoError(b, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%05d", i)), randBytes(uint64(i), 4096), 0o644))
	}
	for b.Loop() {
		b.StopTimer()
		s := newStore(b, onDisk(b))
		b.StartTimer()
		_, err := s.AddPath(context.Background(), dir, AddOptions{})
		require.NoError(b, err)
	}
}

func BenchmarkFetch(b *testing.B) {
	p := benchFile(b, benchSize)
	from := newStore(b, onDisk(b), onHost(b))
	a, err := from.AddPath(context.Background(), p, AddOptions{InPlace: true})
	require.NoError(b, err)
	b.SetBytes(benchSize)
	for b.Loop() {
		b.StopTimer()
		to := newStore(b, onDisk(b), onHost(b))
		join(b, to, from)
		b.StartTimer()
		_, err := to.Fetch(context.Background(), perigee.PartInput{CID: a.CID, Size: a.Size}, []perigee.PeerID{idOf(from)}, nil)
		require.NoError(b, err)
	}
}
