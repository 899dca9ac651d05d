package api

import (
	"context"
	"net/http"
	"path"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// Root is the CID in a request's path. It is exported because huma reads the
// parameters of exported embedded fields only.
type Root struct {
	CID string `path:"cid" maxLength:"512" doc:"CID of a file, directory or block"`
}

func (r *Root) parse() (perigee.CID, error) { return perigee.ParseCID(r.CID) }

// below is a CID and, optionally, a path below it.
type below struct {
	Root
	Path string `query:"path" maxLength:"4096" doc:"path below the CID; default the CID itself"`
}

// resolve returns the CID at the end of the path.
func (s *Server) resolve(ctx context.Context, in *below) (perigee.CID, error) {
	c, err := in.parse()
	if err != nil {
		return c, err
	}
	rel := strings.TrimPrefix(path.Clean("/"+in.Path), "/")
	if rel == "" {
		return c, nil
	}
	return s.cfg.Data.Resolve(ctx, c.String()+"/"+rel)
}

func progressOf(done, total int64) client.Progress {
	return client.Progress{Done: done, Total: total}
}

// long answers an operation that may take a while: with progress events and a
// result event when the client accepts events, else with plain JSON.
func long[T any](s *Server, ctx context.Context, fn func(ctx context.Context, progress ProgressFunc) (T, error)) (*huma.StreamResponse, error) {
	x := exchangeOf(ctx)
	if !wantsEvents(x.r) {
		v, err := fn(ctx, nil)
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			hc.SetHeader("Content-Type", "application/json")
			hc.SetStatus(http.StatusOK)
			_ = s.huma.Marshal(hc.BodyWriter(), "application/json", v)
		}}, nil
	}
	return &huma.StreamResponse{Body: func(huma.Context) {
		s.stream(x, func(ctx context.Context, e *events) error {
			v, err := fn(ctx, e.progress())
			if err != nil {
				return err
			}
			return e.send(eventResult, v)
		})
	}}, nil
}

// routeData serves the operations on roots.
func (s *Server) routeData() {
	d := s.cfg.Data
	type add struct {
		Body struct {
			Path string `json:"path" minLength:"1" maxLength:"4096" doc:"absolute path of a file or directory on the node's machine"`
			client.AddOptions
		}
	}
	route(s, op("AddPath", http.MethodPost, "/v1/data/add", "data", "Add a file or directory of the node's machine",
		"Only over the Unix socket: over TCP a path would let whoever has the token read any file of this machine."),
		func(ctx context.Context, in *add) (*huma.StreamResponse, error) {
			if !exchangeOf(ctx).local {
				return nil, perigee.E("api.AddPath", perigee.Refused, "paths of this machine are taken over the node's Unix socket only; send the bytes to /v1/data/upload instead")
			}
			if !path.IsAbs(in.Body.Path) {
				return nil, perigee.E("api.AddPath", perigee.Invalid, "body.path: %q is not an absolute path", in.Body.Path)
			}
			return long(s, ctx, func(ctx context.Context, p ProgressFunc) (client.Added, error) {
				return d.AddPath(ctx, in.Body.Path, in.Body.AddOptions, p)
			})
		})
	route(s, op("Pins", http.MethodGet, "/v1/data", "data", "Roots that this node keeps", ""),
		func(ctx context.Context, _ *none) (*body[[]client.Pin], error) { return answer(d.Pins(ctx)) })
	route(s, op("Stat", http.MethodGet, "/v1/data/{cid}/stat", "data", "What a CID is and how much of it is here", ""),
		func(ctx context.Context, in *below) (*body[client.DataInfo], error) {
			c, err := s.resolve(ctx, in)
			if err != nil {
				return nil, err
			}
			return answer(d.Stat(ctx, c))
		})
	route(s, op("Ls", http.MethodGet, "/v1/data/{cid}/ls", "data", "Entries of a directory", ""),
		func(ctx context.Context, in *below) (*body[[]client.Entry], error) {
			c, err := s.resolve(ctx, in)
			if err != nil {
				return nil, err
			}
			list, err := d.Ls(ctx, c)
			return &body[[]client.Entry]{entriesOf(list)}, err
		})
	route(s, op("Holders", http.MethodGet, "/v1/data/{cid}/holders", "data", "Nodes that have a root", ""),
		func(ctx context.Context, in *Root) (*body[[]client.Holder], error) {
			c, err := in.parse()
			if err != nil {
				return nil, err
			}
			return answer(d.Holders(ctx, c))
		})
	s.routeKeeping()
}

func entriesOf(list []perigee.TreeEntry) []client.Entry {
	out := make([]client.Entry, len(list))
	for i, e := range list {
		out[i] = client.Entry{Name: e.Name, Kind: client.KindName(e.Kind), Size: e.Size, Target: e.Target, CID: e.CID}
	}
	return out
}

// routeKeeping serves what decides which roots stay.
func (s *Server) routeKeeping() {
	d := s.cfg.Data
	route(s, op("Pin", http.MethodPost, "/v1/data/{cid}/pin", "data", "Fetch what is missing of a root and keep it", ""),
		func(ctx context.Context, in *Root) (*huma.StreamResponse, error) {
			c, err := in.parse()
			if err != nil {
				return nil, err
			}
			return long(s, ctx, func(ctx context.Context, p ProgressFunc) (client.DataInfo, error) {
				if err := d.Pin(ctx, c, p); err != nil {
					return client.DataInfo{}, err
				}
				return d.Stat(ctx, c)
			})
		})
	type change struct {
		id, verb, summary string
		do                func(context.Context, perigee.CID) error
	}
	for _, ch := range []change{
		{"Unpin", "unpin", "Keep a root no longer for the user", d.Unpin},
		{"Remove", "rm", "Drop a root and what only it kept", d.Remove},
	} {
		route(s, op(ch.id, http.MethodPost, "/v1/data/{cid}/"+ch.verb, "data", ch.summary, ""),
			func(ctx context.Context, in *Root) (*none, error) {
				c, err := in.parse()
				if err != nil {
					return nil, err
				}
				return &none{}, ch.do(ctx, c)
			})
	}
	route(s, op("Verify", http.MethodPost, "/v1/data/{cid}/verify", "data", "Check every byte below a root against its CID", ""),
		func(ctx context.Context, in *Root) (*huma.StreamResponse, error) {
			c, err := in.parse()
			if err != nil {
				return nil, err
			}
			return long(s, ctx, func(ctx context.Context, p ProgressFunc) (client.VerifyReport, error) {
				return d.Verify(ctx, c, p)
			})
		})
	route(s, op("GC", http.MethodPost, "/v1/gc", "data", "Remove blocks that nothing keeps or uses", ""),
		func(ctx context.Context, _ *none) (*huma.StreamResponse, error) {
			return long(s, ctx, func(ctx context.Context, _ ProgressFunc) (client.GCReport, error) { return d.GC(ctx) })
		})
}
