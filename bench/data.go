package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/perigee-network/perigee/client"
	"github.com/perigee-network/perigee/demo/localnet"
)

const (
	fileSize   = 512 << 20
	smallFiles = 10_000
	smallSize  = 4 << 10
)

// store measures adding, indexing and fetching.
type store struct {
	dir    string
	random *rand.ChaCha8
}

// file writes a file of random bytes, which nothing can compress or has seen.
func (s *store) file(name string, size int) (string, error) {
	path := filepath.Join(s.dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, min(size, 1<<20))
	for left := size; left > 0; left -= len(buf) {
		buf = buf[:min(left, len(buf))]
		if _, err := s.random.Read(buf); err != nil {
			return "", err
		}
		if _, err := f.Write(buf); err != nil {
			return "", err
		}
	}
	return path, nil
}

// tree writes a directory of many small files.
func (s *store) tree(name string) (string, error) {
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for i := range smallFiles {
		if _, err := s.file(filepath.Join(name, fmt.Sprintf("%05d", i)), smallSize); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// add measures adding a path, in seconds.
func (s *store) add(ctx context.Context, n *localnet.Node, path string, o client.AddOptions) (client.Added, float64, error) {
	start := time.Now()
	added, err := n.Client.AddPath(ctx, path, o, nil)
	return added, time.Since(start).Seconds(), err
}

// fetch measures how long a node takes to get all below a root and keep it.
func (s *store) fetch(ctx context.Context, n *localnet.Node, added client.Added) (float64, error) {
	start := time.Now()
	info, err := n.Client.Pin(ctx, added.CID, nil)
	if err == nil && info.Local < added.Size {
		err = fmt.Errorf("fetched %d of %d bytes", info.Local, added.Size)
	}
	return time.Since(start).Seconds(), err
}
