package db

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
)

// memory is the in-memory twin: a map and its sorted keys.
type memory struct {
	mu     sync.RWMutex
	closed bool
	keys   []string
	vals   map[string][]byte // values are never changed in place
}

var _ DB = (*memory)(nil)

// Memory returns an empty store that lives in memory and ends with Close.
func Memory() DB { return &memory{vals: map[string][]byte{}} }

func (m *memory) Get(key []byte) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, errClosed("db.Get")
	}
	v, ok := m.vals[string(key)]
	if !ok {
		return nil, notFound()
	}
	return bytes.Clone(v), nil
}

func (m *memory) Write(b *Batch) error {
	if err := b.check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed("db.Write")
	}
	for _, o := range b.ops {
		switch o.kind {
		case opPut:
			m.put(string(o.key), bytes.Clone(o.value))
		case opDelete:
			m.deleteRange(string(o.key), string(o.key)+"\x00")
		case opDeletePrefix:
			m.deleteRange(string(o.key), string(prefixEnd(o.key)))
		}
	}
	return nil
}

func (m *memory) WriteLazy(b *Batch) error { return m.Write(b) }

func (m *memory) put(key string, value []byte) {
	if _, ok := m.vals[key]; !ok {
		i, _ := slices.BinarySearch(m.keys, key)
		m.keys = slices.Insert(m.keys, i, key)
	}
	m.vals[key] = value
}

func (m *memory) deleteRange(from, to string) {
	i, _ := slices.BinarySearch(m.keys, from)
	j, _ := slices.BinarySearch(m.keys, to)
	for _, k := range m.keys[i:j] {
		delete(m.vals, k)
	}
	m.keys = slices.Delete(m.keys, i, j)
}

func (m *memory) Scan(prefix, after []byte, fn func(key, value []byte) error) error {
	type kv struct {
		key   string
		value []byte
	}
	m.mu.RLock()
	if m.closed {
		m.mu.RUnlock()
		return errClosed("db.Scan")
	}
	var snapshot []kv // fn runs without the lock, so that it may write
	i, _ := slices.BinarySearch(m.keys, string(scanStart(prefix, after)))
	for ; i < len(m.keys) && strings.HasPrefix(m.keys[i], string(prefix)); i++ {
		snapshot = append(snapshot, kv{m.keys[i], m.vals[m.keys[i]]})
	}
	m.mu.RUnlock()
	for _, e := range snapshot {
		if err := fn([]byte(e.key), bytes.Clone(e.value)); err != nil {
			if errors.Is(err, Stop) {
				return nil
			}
			return err
		}
	}
	return nil
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.keys, m.vals = true, nil, nil
	return nil
}
