package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/perigee-network/perigee"
)

// exchange is the raw request and answer, for operations that stream bytes.
type exchange struct {
	w     http.ResponseWriter
	r     *http.Request
	local bool // over the Unix socket
}

type exchangeKey struct{}

// exchangeOf returns the exchange of a request's context.
func exchangeOf(ctx context.Context) *exchange {
	return ctx.Value(exchangeKey{}).(*exchange)
}

// markLocal puts the exchange into the request's context.
func markLocal(next http.Handler, local bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{w: w, local: local}
		x.r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		next.ServeHTTP(w, x.r)
	})
}

// recovered answers 500 for a panic, which it logs with its stack.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { //nolint:errorlint // the value net/http itself compares
				panic(p)
			}
			s.cfg.Log.Error("the API panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			// If the answer has begun, this write only breaks it off, as it should.
			writeProblem(w, perigee.E("api", perigee.Internal, "the node failed to answer this request; its log says more"))
		}()
		next.ServeHTTP(w, r)
	})
}

// guard refuses requests over TCP that do not carry the token, and those that a
// web page made a browser send: they come with a foreign Origin, or, after DNS
// rebinding, with a host name that is not this node's.
func (s *Server) guard(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.cfg.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.knownHost(r.Host) {
			writeProblem(w, perigee.E("api.guard", perigee.Refused, "this API does not answer for the host %q; ask it by IP address or as localhost", r.Host))
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && !sameOrigin(origin, r.Host) {
			writeProblem(w, perigee.E("api.guard", perigee.Refused, "this API does not answer pages of %s", origin))
			return
		}
		if r.URL.Path != openAPIPath {
			// Hashes have one length, so that the comparison takes constant time.
			got := sha256.Sum256([]byte(bearer(r.Header.Get("Authorization"))))
			if s.cfg.Token == "" || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
				w.Header().Set("WWW-Authenticate", `Bearer realm="perigee"`)
				writeProblemStatus(w, http.StatusUnauthorized, s.tokenFault(r))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// tokenFault says what is wrong with a request's token and where the right one is.
func (s *Server) tokenFault(r *http.Request) error {
	wrong := "the token is wrong"
	if r.Header.Get("Authorization") == "" {
		wrong = "this API needs a token, sent as 'Authorization: Bearer TOKEN'"
	}
	where := "the file named token in the node's home directory"
	if s.cfg.TokenFile != "" {
		where = s.cfg.TokenFile + " on the node's machine"
	}
	return perigee.E("api.guard", perigee.Refused, "%s: it is in %s; the command line takes it from PERIGEE_TOKEN", wrong, where)
}

// bearer returns the token of an Authorization header.
func bearer(header string) string {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// knownHost reports whether the Host header may name this API. An address
// cannot be rebound to another machine; a name can.
func (s *Server) knownHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") || net.ParseIP(host) != nil {
		return true
	}
	for _, h := range s.cfg.Hosts {
		if strings.EqualFold(h, host) {
			return true
		}
	}
	return false
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// dispatch finds the operation of a request, or answers that there is none.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request) {
	h, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r) // not h: the mux sets the path's values
		return
	}
	// The mux's own answer tells an unknown path from an unknown method, and
	// which methods there are.
	probe := httptest.NewRecorder()
	h.ServeHTTP(probe, r)
	if allow := probe.Header().Get("Allow"); probe.Code == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allow)
		writeProblemStatus(w, http.StatusMethodNotAllowed,
			perigee.E("api", perigee.Unsupported, "%s does not take %s, only %s", r.URL.Path, r.Method, allow))
		return
	}
	writeProblem(w, perigee.E("api", perigee.NotFound, "there is no %s in this API; %s lists what there is", r.URL.Path, openAPIPath))
}
