package client

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/perigee-network/perigee"
)

// packTar writes the files, directories and symlinks below dir as an archive
// whose names are relative to dir. Anything else there is Invalid.
func packTar(ctx context.Context, dir string, w io.Writer) error {
	const op = "client.Add"
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return pathError(op, name, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil || rel == "." {
			return err
		}
		return packEntry(tw, name, filepath.ToSlash(rel), d)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func packEntry(tw *tar.Writer, name, rel string, d fs.DirEntry) error {
	const op = "client.Add"
	switch d.Type() {
	case fs.ModeDir:
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: rel + "/", Mode: 0o755})
	case fs.ModeSymlink:
		target, err := os.Readlink(name)
		if err != nil {
			return pathError(op, name, err)
		}
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: rel, Linkname: target, Mode: 0o777})
	case 0:
	default:
		return perigee.E(op, perigee.Invalid, "%s is neither file, directory nor symlink", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return pathError(op, name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return pathError(op, name, err)
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: rel, Size: info.Size(), Mode: 0o644}); err != nil {
		return err
	}
	if n, err := io.Copy(tw, f); err != nil {
		if errors.Is(err, tar.ErrWriteTooLong) {
			return perigee.E(op, perigee.Corrupt, "%s grew while it was read", name)
		}
		return err
	} else if n < info.Size() {
		return perigee.E(op, perigee.Corrupt, "%s shrank while it was read", name)
	}
	return nil
}

// unpackTar writes the entries of an archive below root, which nothing in the
// archive can leave: os.Root refuses paths and symlinks that would.
func unpackTar(r io.Reader, root *os.Root) error {
	const op = "client.Get"
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(strings.TrimSuffix(h.Name, "/"))
		if !fs.ValidPath(name) {
			return perigee.E(op, perigee.Corrupt, "the node sent an entry named %q", h.Name)
		}
		if err := unpackEntry(root, name, h, tr); err != nil {
			return perigee.E(op, perigee.Internal, err, "cannot write %s", filepath.Join(root.Name(), name))
		}
	}
}

func unpackEntry(root *os.Root, name string, h *tar.Header, tr io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// What lies there is replaced, not written through: it may be a symlink.
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return root.Symlink(h.Linkname, name)
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, tr); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
