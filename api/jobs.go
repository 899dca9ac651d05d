package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// Bounds of what a request about jobs may ask.
const (
	maxWait    = 10 * time.Minute
	maxJobList = 1000
)

// JobID is a job in a request's path; exported as Root is.
type JobID struct {
	ID string `path:"id" maxLength:"128" doc:"the job's ID"`
}

// jobBody is a job in a request's body, as YAML or JSON. It is parsed by
// perigee.ParseJob, whose errors name key, line and nearest valid key.
type jobBody struct {
	RawBody []byte
}

func (b *jobBody) parse() (perigee.Job, error) {
	job, err := perigee.ParseJob(b.RawBody)
	if err != nil {
		return perigee.Job{}, err
	}
	if err := job.Normalize(); err != nil {
		return perigee.Job{}, err
	}
	return *job, nil
}

// jobOp describes an operation whose body is a job.
func jobOp(id, path, summary, description string) huma.Operation {
	o := op(id, http.MethodPost, path, "jobs", summary, description)
	o.MaxBodyBytes = perigee.MaxJobFile + 1 // huma refuses the limit itself
	return o
}

// routeJobs serves jobs, but for their streams.
func (s *Server) routeJobs() {
	s.routeSubmit()
	jobs := s.cfg.Jobs
	type list struct {
		Limit int `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"most jobs told"`
	}
	route(s, op("Jobs", http.MethodGet, "/v1/jobs", "jobs", "Jobs of this node, newest first, without executions", ""),
		func(ctx context.Context, in *list) (*body[[]perigee.JobStatus], error) {
			return answer(jobs.List(ctx, min(in.Limit, maxJobList)))
		})
	route(s, op("Job", http.MethodGet, "/v1/jobs/{id}", "jobs", "Where a job stands", ""),
		func(ctx context.Context, in *JobID) (*body[perigee.JobStatus], error) {
			return answer(jobs.Get(ctx, in.ID))
		})
	route(s, op("Results", http.MethodGet, "/v1/jobs/{id}/results", "jobs", "What a job left behind", "Unavailable while the job runs."),
		func(ctx context.Context, in *JobID) (*body[client.Results], error) {
			st, err := jobs.Get(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return answer(resultsOf(&st))
		})
	route(s, op("Cancel", http.MethodPost, "/v1/jobs/{id}/cancel", "jobs", "Stop a job", "Cancelling a finished job changes nothing."),
		func(ctx context.Context, in *JobID) (*none, error) { return &none{}, jobs.Cancel(ctx, in.ID) })
	route(s, jobOp("Explain", "/v1/explain", "How a job would be placed, and why", "Nothing runs."),
		func(ctx context.Context, in *jobBody) (*body[perigee.Explanation], error) {
			job, err := in.parse()
			if err != nil {
				return nil, err
			}
			return answer(jobs.Explain(ctx, job))
		})
	route(s, op("ExplainJob", http.MethodGet, "/v1/jobs/{id}/explain", "jobs", "How a job was placed, and why", ""),
		func(ctx context.Context, in *JobID) (*body[perigee.Explanation], error) {
			return answer(jobs.ExplainJob(ctx, in.ID))
		})
}

// submitted answers a submission.
type submitted struct {
	Status   int
	Location string `header:"Location" doc:"of the job"`
	Body     client.Submitted
}

// routeSubmit serves submissions.
func (s *Server) routeSubmit() {
	type submit struct {
		jobBody
		Key  string `header:"Idempotency-Key" maxLength:"256" doc:"the same key always answers with the same job, so that a submission can be repeated"`
		Wait string `query:"wait" maxLength:"32" doc:"answer when the job is finished or after this long, such as 30s; at most 10m"`
	}
	o := jobOp("Submit", "/v1/jobs", "Submit a job",
		"The job is durable once this answers. With wait the answer holds the job's status: 200 when it is finished, 202 when it is not.")
	o.DefaultStatus = http.StatusAccepted
	route(s, o, func(ctx context.Context, in *submit) (*submitted, error) {
		wait, err := parseWait(in.Wait)
		if err != nil {
			return nil, err
		}
		job, err := in.parse()
		if err != nil {
			return nil, err
		}
		id, err := s.cfg.Jobs.Submit(ctx, job, in.Key)
		if err != nil {
			return nil, err
		}
		out := &submitted{Status: http.StatusAccepted, Location: "/v1/jobs/" + id, Body: client.Submitted{ID: id}}
		if wait > 0 {
			st, err := s.waitFor(ctx, id, wait)
			if err != nil {
				return nil, err
			}
			out.Body.Status = &st
			if st.State.Final() {
				out.Status = http.StatusOK
			}
		}
		return out, nil
	})
}

func parseWait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, perigee.E("api.Submit", perigee.Invalid, "query.wait: %q is not a duration such as 30s", text)
	}
	return min(d, maxWait), nil
}

// waitFor returns the job's status once it is final, or after d as it is then.
func (s *Server) waitFor(ctx context.Context, id string, d time.Duration) (perigee.JobStatus, error) {
	wctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	st, err := s.cfg.Jobs.Wait(wctx, id)
	if err != nil && wctx.Err() != nil && ctx.Err() == nil {
		return s.cfg.Jobs.Get(ctx, id)
	}
	return st, err
}

// resultsOf returns what a finished job left, or why there is nothing.
func resultsOf(st *perigee.JobStatus) (client.Results, error) {
	const op = "api.Results"
	if !st.State.Final() {
		return client.Results{}, perigee.E(op, perigee.Unavailable, "job %s is still %s: %d of %d parts are done", st.ID, st.State, st.Done, st.Parts)
	}
	if !st.Output.Defined() {
		if st.Error != nil {
			return client.Results{}, perigee.E(op, perigee.NotFound, "job %s has no results, it %s: %s", st.ID, st.State, st.Error.Message)
		}
		return client.Results{}, perigee.E(op, perigee.NotFound, "job %s has no results, it is %s", st.ID, st.State)
	}
	r := client.Results{ID: st.ID, Output: st.Output, ExitCode: st.ExitCode, Parts: []client.PartResult{}}
	for _, e := range st.Executions {
		if e.Accepted {
			r.Parts = append(r.Parts, client.PartResult{Part: e.Part, Merge: e.Merge, Label: e.Label, Provider: e.Provider,
				Output: e.Output, Receipt: e.Receipt, ExitCode: e.ExitCode})
		}
	}
	return r, nil
}
