package api

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"testing"

	"github.com/perigee-network/perigee"
)

// FuzzTarEntries feeds uploads to the reader of archives: whatever it lets
// through has a path that stays inside and as many bytes as were sent.
func FuzzTarEntries(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir})
	_ = w.WriteHeader(&tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Size: 3})
	_, _ = w.Write([]byte("abc"))
	_ = w.WriteHeader(&tar.Header{Name: "l", Linkname: "../x", Typeflag: tar.TypeSymlink})
	_ = w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, archive []byte) {
		for e, err := range tarEntries(bytes.NewReader(archive)) {
			if err != nil {
				if k := perigee.KindOf(err); k != perigee.Invalid && k != perigee.Unavailable {
					t.Fatalf("kind %s: %v", k, err)
				}
				return
			}
			if !fs.ValidPath(e.Path) {
				t.Fatalf("path %q", e.Path)
			}
			if e.Kind != perigee.KindFile {
				continue
			}
			r, err := e.Open()
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, r); err == nil && n != e.Size || n > int64(len(archive)) {
				t.Fatalf("%d bytes where %d were promised and %d sent", n, e.Size, len(archive))
			}
		}
	})
}
