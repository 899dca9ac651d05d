package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// The kinds of things that a person may name as data.
const (
	sourcePath = iota + 1
	sourceCID
	sourceDataset
)

// source is data as a person named it.
type source struct {
	text  string
	kind  int
	cid   perigee.CID // of a bare CID
	isDir bool        // of a path
}

// findSource tells what a person named: a file or directory that exists wins,
// then a CID, then OWNER/NAME.
func findSource(text string) (source, error) {
	s := source{text: text}
	if text == "" {
		return s, usagef("a source is empty; name a path, a CID or OWNER/NAME")
	}
	if info, err := os.Stat(text); err == nil {
		s.kind, s.isDir = sourcePath, info.IsDir()
		return s, nil
	} else if os.IsPermission(err) {
		return s, perigee.E("perigee", perigee.Refused, "no permission to read %s", text)
	}
	root, rest, _ := strings.Cut(strings.TrimPrefix(text, "/ipfs/"), "/")
	if id, err := perigee.ParseCID(root); err == nil {
		s.kind = sourceCID
		if rest == "" {
			s.cid = id
		}
		return s, nil
	}
	if _, _, err := perigee.ParseDatasetName(text); err == nil {
		s.kind = sourceDataset
		return s, nil
	}
	return s, perigee.E("perigee", perigee.NotFound, "%s: there is no such file or directory, and it is neither a CID nor OWNER/NAME of a dataset", text)
}

// splitMount reads SOURCE[:MOUNT]. A path that exists wins over a mount in it.
func splitMount(text string) (src, mount string) {
	if _, err := os.Stat(text); err == nil {
		return text, ""
	}
	if i := strings.LastIndex(text, ":/"); i > 0 {
		return text[:i], text[i+1:]
	}
	return text, ""
}

// absolute makes a path absolute; it stays as it is when the working directory
// is gone.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// add adds a path with progress on the terminal. In place works only over the
// node's socket; elsewhere the bytes are sent.
func (a *app) add(ctx context.Context, c *client.Client, path string, o client.AddOptions) (client.Added, error) {
	o.InPlace = o.InPlace && c.Local()
	verb := "adding "
	if o.InPlace {
		verb = "indexing "
	}
	m := a.newMeter(verb + path)
	defer m.end()
	return c.Add(ctx, path, o, m.bytes)
}

// localize replaces the local paths in a job by CIDs: relative ones are looked
// for below dir. Inputs are indexed in place, programs copied.
func (a *app) localize(ctx context.Context, c *client.Client, job *perigee.Job, dir string) error {
	for _, w := range []*perigee.Wasm{job.Wasm, job.Merge} {
		if w == nil {
			continue
		}
		id, err := a.module(ctx, c, below(dir, w.Module))
		if err != nil {
			return err
		}
		w.Module = id
	}
	for i := range job.Inputs {
		in := &job.Inputs[i]
		if in.Source == "" { // copies that see no data
			continue
		}
		path := below(dir, in.Source)
		src, err := findSource(path)
		if err != nil {
			return err
		}
		if src.kind == sourcePath {
			added, err := a.add(ctx, c, path, client.AddOptions{InPlace: true})
			if err != nil {
				return err
			}
			in.Source = added.CID.String()
		}
	}
	return nil
}

// below returns what a relative name means when it is a path below dir.
func below(dir, name string) string {
	if dir == "" || filepath.IsAbs(name) {
		return name
	}
	if path := filepath.Join(dir, name); exists(path) {
		return path
	}
	return name
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// module returns the CID of a program that a person named.
func (a *app) module(ctx context.Context, c *client.Client, name string) (string, error) {
	src, err := findSource(name)
	if err != nil {
		return "", err
	}
	switch {
	case src.kind == sourceDataset:
		return "", perigee.E("perigee", perigee.Invalid, "%s names a dataset where a program is due", name)
	case src.kind == sourceCID:
		return name, nil
	case src.isDir:
		return "", perigee.E("perigee", perigee.Invalid, "%s is a directory; a program is a WebAssembly file", name)
	}
	if err := checkModule(name); err != nil {
		return "", err
	}
	added, err := a.add(ctx, c, name, client.AddOptions{})
	return added.CID.String(), err
}

// checkModule refuses a file that is plainly no WebAssembly before it goes
// anywhere; the engine checks the rest.
func checkModule(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return perigee.E("perigee", perigee.Refused, "cannot read %s", name)
	}
	defer f.Close()
	var magic [4]byte
	if n, _ := f.Read(magic[:]); n < 4 || string(magic[:]) != "\x00asm" {
		return perigee.E("perigee", perigee.Invalid, "%s is not a WebAssembly module: it does not begin with \\0asm", name)
	}
	return nil
}
