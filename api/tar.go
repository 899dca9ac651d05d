package api

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"path"
	"strings"

	"github.com/perigee-network/perigee"
)

// maxTarPath bounds the paths in an uploaded archive, in bytes.
const maxTarPath = 4096

// tarEntries reads an archive as entries of a tree. The archive may be hostile:
// names that leave the tree, devices, hard links and sparse files, whose few
// bytes may stand for exabytes, end the sequence with an error of kind Invalid.
func tarEntries(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		tr := tar.NewReader(r)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Entry{}, tarError(err))
				return
			}
			if h.Typeflag == tar.TypeXGlobalHeader {
				continue
			}
			e, err := tarEntry(h, tr)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// tarError tells a malformed archive from a broken transfer.
func tarError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, tar.ErrInsecurePath) {
		return perigee.E("api.Upload", perigee.Invalid, err, "the body is not a complete tar archive")
	}
	return perigee.E("api.Upload", perigee.Unavailable, err, "the upload broke off")
}

func tarEntry(h *tar.Header, tr *tar.Reader) (Entry, error) {
	name := strings.TrimSuffix(h.Name, "/")
	clean := path.Clean(name)
	if name == "" || len(name) > maxTarPath || strings.ContainsRune(name, 0) || path.IsAbs(name) || !fs.ValidPath(clean) {
		return Entry{}, perigee.E("api.Upload", perigee.Invalid, "the archive has an entry named %.100q: names are relative, stay inside and have at most %d bytes", h.Name, maxTarPath)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return Entry{}, perigee.E("api.Upload", perigee.Invalid, "%s is a sparse file; archive it whole", clean)
		}
	}
	e := Entry{Path: clean}
	switch h.Typeflag {
	case tar.TypeReg:
		e.Kind, e.Size = perigee.KindFile, h.Size
		e.Open = func() (io.ReadCloser, error) { return io.NopCloser(tr), nil }
	case tar.TypeDir:
		e.Kind = perigee.KindDir
	case tar.TypeSymlink:
		e.Kind, e.Target = perigee.KindSymlink, h.Linkname
	default:
		return Entry{}, perigee.E("api.Upload", perigee.Invalid, "%s is neither file, directory nor symlink", clean)
	}
	return e, nil
}

// writeTar writes what lies at c as an archive. A directory's entries are named
// relative to it; a file or symlink is one entry called name.
func writeTar(ctx context.Context, d Data, c perigee.CID, name string, w io.Writer) error {
	info, err := d.Stat(ctx, c)
	if err != nil {
		return err
	}
	t := &tarWriter{ctx: ctx, data: d, tw: tar.NewWriter(w)}
	switch info.Kind {
	case "dir":
		// In one go: file by file each would cost a round trip to its holder.
		if err = d.Fetch(ctx, c); err == nil {
			err = t.dir(c, "")
		}
	case "file":
		if name == "/" || name == "." {
			name = c.String()
		}
		err = t.entry(perigee.TreeEntry{Name: name, Kind: perigee.KindFile, Size: info.Size, CID: c}, name)
	default:
		return perigee.E("api.Tar", perigee.Unsupported, "%s is a %s; only files and directories become archives", c, info.Kind)
	}
	if err != nil {
		return err
	}
	return t.tw.Close()
}

type tarWriter struct {
	ctx  context.Context
	data Data
	tw   *tar.Writer
}

func (t *tarWriter) dir(c perigee.CID, prefix string) error {
	list, err := t.data.Ls(t.ctx, c)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := t.entry(e, path.Join(prefix, e.Name)); err != nil {
			return err
		}
	}
	return nil
}

func (t *tarWriter) entry(e perigee.TreeEntry, name string) error {
	switch e.Kind {
	case perigee.KindDir:
		if err := t.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}); err != nil {
			return err
		}
		return t.dir(e.CID, name)
	case perigee.KindSymlink:
		return t.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: e.Target, Mode: 0o777})
	}
	f, err := t.data.OpenFile(t.ctx, e.CID)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: e.Size, Mode: 0o644}); err != nil {
		return err
	}
	_, err = io.Copy(t.tw, f)
	return err
}
