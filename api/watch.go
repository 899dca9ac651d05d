package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// routeWatch serves the streams of a job.
func (s *Server) routeWatch() {
	type watch struct {
		JobID
		Brief bool `query:"brief" doc:"leave the executions out, except from the final event"`
	}
	route(s, op("Watch", http.MethodGet, "/v1/jobs/{id}/events", "jobs", "Follow a job until it is finished",
		"Server-sent events: job with the present state and then each change, end after the final one. A stream that breaks off without end can simply be asked for again."),
		func(ctx context.Context, in *watch) (*huma.StreamResponse, error) {
			// An unknown job is a problem of its own, not an event.
			if _, err := s.cfg.Jobs.Get(ctx, in.ID); err != nil {
				return nil, err
			}
			return &huma.StreamResponse{Body: func(huma.Context) {
				s.stream(exchangeOf(ctx), func(ctx context.Context, e *events) error {
					return s.cfg.Jobs.Watch(ctx, in.ID, func(st perigee.JobStatus) error {
						if in.Brief && !st.State.Final() {
							st.Executions = nil
						}
						return e.send(eventJob, &st)
					})
				})
			}}, nil
		})

	type logs struct {
		JobID
		Follow bool `query:"follow" doc:"go on until the job is finished"`
	}
	route(s, op("Logs", http.MethodGet, "/v1/jobs/{id}/logs", "jobs", "What a job's programs wrote",
		"One JSON object per line, or server-sent log events when the client accepts them. Each part's streams begin with their first byte."),
		func(ctx context.Context, in *logs) (*huma.StreamResponse, error) {
			if _, err := s.cfg.Jobs.Get(ctx, in.ID); err != nil {
				return nil, err
			}
			x := exchangeOf(ctx)
			if wantsEvents(x.r) {
				return &huma.StreamResponse{Body: func(huma.Context) {
					s.stream(x, func(ctx context.Context, e *events) error {
						return s.cfg.Jobs.Logs(ctx, in.ID, in.Follow, func(c client.LogChunk) error { return e.send(eventLog, &c) })
					})
				}}, nil
			}
			return &huma.StreamResponse{Body: func(huma.Context) { s.logLines(ctx, x, in.ID, in.Follow) }}, nil
		})
}

// logLines answers with a job's output as lines of JSON.
func (s *Server) logLines(ctx context.Context, x *exchange, id string, follow bool) {
	w := s.answerOf(x)
	defer w.done()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Trailer", failTrailer)
	w.WriteHeader(http.StatusOK)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // a follower must not hold up a shutdown
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	enc := json.NewEncoder(w)
	w.end(s.cfg.Jobs.Logs(ctx, id, follow, func(c client.LogChunk) error {
		if err := enc.Encode(&c); err != nil {
			return perigee.E("api.Logs", perigee.Cancelled, err, "the client went away")
		}
		if follow {
			return w.rc.Flush()
		}
		return nil
	}))
}
