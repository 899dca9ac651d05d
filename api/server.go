package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/perigee-network/perigee"
)

// Config says what a Server serves. The interfaces are all required.
type Config struct {
	Node      Node
	Jobs      Jobs
	Data      Data
	Datasets  Datasets
	Providers Providers

	// Token is what requests over TCP must carry; empty refuses all of them.
	Token string
	// TokenFile is where a person on this machine finds Token, for messages.
	TokenFile string
	// Hosts are names, besides IP addresses and localhost, under which the API
	// may be asked over TCP.
	Hosts []string
	// Version is told in the OpenAPI document; default perigee.Version.
	Version string
	// Metrics answers GET /metrics; default prometheus.DefaultGatherer.
	Metrics prometheus.Gatherer
	// Log receives panics and failures of the server itself; nil means nowhere.
	Log *slog.Logger

	// Heartbeat is how often an idle event stream sends a comment, and Stall how
	// long a reader may take nothing or a writer send nothing before its request
	// is given up. The defaults are 15 and 60 seconds.
	Heartbeat, Stall time.Duration
}

// Server answers the HTTP API. It is safe for concurrent use.
type Server struct {
	cfg  Config
	mux  *http.ServeMux
	huma huma.API
	spec []byte
	stop chan struct{} // closed when the server ends: long answers end too
	once sync.Once
}

// New returns a server of what cfg names. It opens nothing: mount its Handler,
// or let Serve do that.
func New(cfg Config) *Server {
	if cfg.Version == "" {
		cfg.Version = perigee.Version
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.DefaultGatherer
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = 15 * time.Second
	}
	if cfg.Stall <= 0 {
		cfg.Stall = time.Minute
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), stop: make(chan struct{})}
	s.huma = humago.New(s.mux, humaConfig(cfg.Version))
	s.huma.UseMiddleware(mapStatus)
	s.routeNode()
	s.routeData()
	s.routeTransfer()
	s.routeDatasets()
	s.routeJobs()
	s.routeWatch()
	s.routeReceipts()
	s.routeProviders()
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{}))
	s.mux.HandleFunc("GET "+openAPIPath, s.serveOpenAPI)
	s.document()
	return s
}

// Handler returns the API for one kind of listener. A local one, the Unix
// socket, lets everyone in who can open it and takes paths of this machine;
// any other asks for the token.
func (s *Server) Handler(local bool) http.Handler {
	h := http.Handler(http.HandlerFunc(s.dispatch))
	if !local {
		h = s.guard(h)
	}
	return s.recovered(markLocal(h, local))
}

// The limits of a connection before its request is known to be welcome.
const (
	headerTimeout  = 10 * time.Second
	bodyTimeout    = 30 * time.Second // for bodies that are read whole
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	drainTime      = 3 * time.Second
)

// Serve answers requests from l until ctx ends; then it lets running requests
// end for a few seconds, closes what is left and returns nil. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener, local bool) error {
	srv := &http.Server{
		Handler:           s.Handler(local),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		s.Close()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		if srv.Shutdown(drain) != nil {
			_ = srv.Close() // whoever is still there has had its time
		}
	}()
	err := srv.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		<-done
		return nil
	}
	return perigee.E("api.Serve", perigee.Internal, err, "the API on %s stopped", l.Addr())
}

// Close ends all event streams, which would otherwise hold up a shutdown. The
// server stays usable for short requests.
func (s *Server) Close() { s.once.Do(func() { close(s.stop) }) }

// route registers an operation whose errors are turned into problems.
func route[I, O any](s *Server, op huma.Operation, fn func(ctx context.Context, in *I) (*O, error)) {
	op.BodyReadTimeout = bodyTimeout
	huma.Register(s.huma, op, func(ctx context.Context, in *I) (*O, error) {
		// The deadline for the body would else end the request's context while
		// the operation still works.
		_ = http.NewResponseController(exchangeOf(ctx).w).SetReadDeadline(time.Time{})
		out, err := fn(ctx, in)
		if err != nil {
			return nil, problemOf(err)
		}
		return out, nil
	})
}

// body is an answer of JSON.
type body[T any] struct{ Body T }

// none is an input without parameters, or an answer without a body.
type none struct{}

// answer makes a body of a call's result.
func answer[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	return &body[T]{v}, nil
}

// op describes an operation. Its ID is the name of the client's method.
func op(id, method, path, tag, summary, description string) huma.Operation {
	return huma.Operation{OperationID: id, Method: method, Path: path, Tags: []string{tag}, Summary: summary, Description: description}
}
