package api

import (
	"context"
	"io"
	"mime"
	"net/http"
	"path"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// The media types of bytes that go in and out.
const (
	tarType = "application/x-tar"
	carType = "application/vnd.ipld.car"
	rawType = "application/octet-stream"
)

// failTrailer carries the problem of an answer that failed half-way, for
// clients that say they understand trailers; for others the connection breaks,
// so that nobody takes half an answer for all of it.
const failTrailer = client.FailTrailer

// routeTransfer serves content itself, in and out.
func (s *Server) routeTransfer() {
	type upload struct {
		Name    string `query:"name" maxLength:"128" doc:"for people, shown in listings"`
		Chunker string `query:"chunker" maxLength:"64"`
		Profile string `query:"profile" maxLength:"64"`
	}
	route(s, op("Upload", http.MethodPost, "/v1/data/upload", "data", "Add the bytes sent",
		"A body of type application/x-tar becomes a directory, any other one file. The body is added as it arrives."),
		func(ctx context.Context, in *upload) (*body[client.Added], error) {
			x := exchangeOf(ctx)
			o := client.AddOptions{Name: in.Name, Chunker: in.Chunker, Profile: in.Profile}
			kind, _, _ := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
			if kind == tarType {
				return answer(s.cfg.Data.AddEntries(ctx, tarEntries(s.bodyOf(x)), o))
			}
			return answer(s.cfg.Data.AddReader(ctx, s.bodyOf(x), o))
		})
	route(s, op("ImportCAR", http.MethodPost, "/v1/data/car", "data", "Add the blocks of a CAR and keep its roots", ""),
		func(ctx context.Context, _ *none) (*body[client.Imported], error) {
			roots, err := s.cfg.Data.ImportCAR(ctx, s.bodyOf(exchangeOf(ctx)))
			return &body[client.Imported]{client.Imported{Roots: roots}}, err
		})
	route(s, op("ExportCAR", http.MethodGet, "/v1/data/{cid}/car", "data", "All blocks below a root as a CAR", ""),
		func(ctx context.Context, in *Root) (*huma.StreamResponse, error) {
			c, err := in.parse()
			if err != nil {
				return nil, err
			}
			return s.bytes(ctx, carType, c, func(w io.Writer) error { return s.cfg.Data.ExportCAR(ctx, c, w) }), nil
		})
	route(s, op("Tar", http.MethodGet, "/v1/data/{cid}/tar", "data", "A file or directory as a tar archive", ""),
		func(ctx context.Context, in *below) (*huma.StreamResponse, error) {
			c, err := s.resolve(ctx, in)
			if err != nil {
				return nil, err
			}
			return s.bytes(ctx, tarType, c, func(w io.Writer) error { return writeTar(ctx, s.cfg.Data, c, path.Base("/"+in.Path), w) }), nil
		})
	route(s, op("File", http.MethodGet, "/v1/data/{cid}/file", "data", "A file's bytes", "Takes Range requests."),
		func(ctx context.Context, in *below) (*huma.StreamResponse, error) {
			c, err := s.resolve(ctx, in)
			if err != nil {
				return nil, err
			}
			f, err := s.cfg.Data.OpenFile(ctx, c)
			if err != nil {
				return nil, err
			}
			return &huma.StreamResponse{Body: func(huma.Context) { s.serveFile(exchangeOf(ctx), c, f) }}, nil
		})
}

// immutable sets the headers of an answer that its CID determines.
func immutable(h http.Header, c perigee.CID, contentType string) {
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "private, max-age=31536000, immutable")
	h.Set("Etag", `"`+c.String()+`"`)
}

// serveFile answers with a file or the part of it that was asked for.
func (s *Server) serveFile(x *exchange, c perigee.CID, f io.ReadSeekCloser) {
	defer f.Close()
	w := s.answerOf(x)
	defer w.done()
	immutable(w.Header(), c, rawType)
	noted := &notedReader{ReadSeeker: f}
	http.ServeContent(w, x.r, "", time.Time{}, noted)
	w.end(noted.err)
}

// notedReader remembers the first failure of a reader.
type notedReader struct {
	io.ReadSeeker
	err error
}

func (n *notedReader) Read(b []byte) (int, error) {
	k, err := n.ReadSeeker.Read(b)
	if err != nil && err != io.EOF && n.err == nil { //nolint:errorlint // a reader returns io.EOF itself
		n.err = err
	}
	return k, err
}

// bytes answers with what fn writes, of unknown length.
func (s *Server) bytes(ctx context.Context, contentType string, c perigee.CID, fn func(w io.Writer) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(huma.Context) {
		w := s.answerOf(exchangeOf(ctx))
		defer w.done()
		immutable(w.Header(), c, contentType)
		w.Header().Set("Trailer", failTrailer)
		w.WriteHeader(http.StatusOK)
		w.end(fn(w))
	}}
}
