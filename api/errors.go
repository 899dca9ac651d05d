package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// statusOf maps the kinds of errors to HTTP statuses: the one place that does.
var statusOf = map[perigee.Kind]int{
	perigee.Invalid:     http.StatusBadRequest,
	perigee.NotFound:    http.StatusNotFound,
	perigee.Refused:     http.StatusForbidden,
	perigee.Unavailable: http.StatusServiceUnavailable,
	perigee.Busy:        http.StatusTooManyRequests,
	perigee.Timeout:     http.StatusGatewayTimeout,
	perigee.Exhausted:   http.StatusInsufficientStorage,
	perigee.Corrupt:     http.StatusUnprocessableEntity,
	perigee.Cancelled:   http.StatusConflict,
	perigee.Unsupported: http.StatusNotImplemented,
	perigee.Internal:    http.StatusInternalServerError,
}

const problemType = "application/problem+json"

// problem is a client.Problem as an error that huma knows how to answer.
type problem struct{ client.Problem }

func (p *problem) Error() string           { return p.Message }
func (p *problem) GetStatus() int          { return p.Status }
func (*problem) ContentType(string) string { return problemType }

// newProblem makes the answer for an error, under a status that its kind does
// not determine alone when status is not 0.
func newProblem(status int, err error) *problem {
	f := perigee.FaultOf(err)
	if status == 0 {
		if status = statusOf[f.Kind]; status == 0 {
			status = http.StatusInternalServerError
		}
	}
	return &problem{client.Problem{Title: http.StatusText(status), Status: status, Kind: f.Kind, Message: f.Message}}
}

// problemOf makes the answer for an error.
func problemOf(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return newProblem(http.StatusRequestEntityTooLarge, tooLargeError(tooLarge.Limit))
	}
	return newProblem(0, err)
}

func tooLargeError(limit int64) error {
	return perigee.E("api", perigee.Invalid, "the request's body is larger than the limit of %d bytes", limit)
}

// writeProblem answers with an error outside of any operation.
func writeProblem(w http.ResponseWriter, err error) { writeProblemStatus(w, 0, err) }

func writeProblemStatus(w http.ResponseWriter, status int, err error) {
	p := newProblem(status, err)
	w.Header().Set("Content-Type", problemType)
	w.Header().Del("Content-Length")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // whoever asked may be gone
}

// fromHuma turns the errors that huma itself makes, for parameters and bodies
// that do not fit their schema, into problems that name the fields.
func fromHuma(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	status := m.Status
	if status == http.StatusUnprocessableEntity { // huma's, for a body that parses but does not fit
		status = statusOf[perigee.Invalid]
	}
	if c, ok := ctx.(*statusContext); ok {
		c.override = status
	}
	p := client.Problem{Title: http.StatusText(status), Status: status, Kind: perigee.Invalid, Message: m.Detail}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		p.Message = tooLargeError(ctx.Operation().MaxBodyBytes - 1).Error()
	case status == http.StatusRequestTimeout:
		p.Kind, p.Message = perigee.Timeout, "the request's body did not arrive in time"
	case status >= 500:
		p.Kind = perigee.Internal
	}
	var fields []string
	for _, d := range m.Errors {
		if d == nil {
			continue
		}
		p.Errors = append(p.Errors, client.FieldError{Field: d.Location, Message: d.Message})
		fields = append(fields, strings.TrimPrefix(d.Location+": "+d.Message, ": "))
	}
	if len(fields) > 0 && status < 500 {
		p.Message = strings.Join(fields, "; ")
	}
	return &problem{p}, nil
}

// mapStatus lets fromHuma change the status of an answer that huma makes.
func mapStatus(ctx huma.Context, next func(huma.Context)) {
	next(&statusContext{humaContext: ctx})
}

type humaContext = huma.Context // embedded under a name that is not a method's

type statusContext struct {
	humaContext
	override int
}

// SetStatus writes the status, or the one that replaces it.
func (c *statusContext) SetStatus(status int) {
	if c.override != 0 {
		status = c.override
	}
	c.humaContext.SetStatus(status)
}

// Unwrap lets the adapter find its own context.
func (c *statusContext) Unwrap() huma.Context { return c.humaContext }
