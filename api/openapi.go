package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"sort"

	"github.com/danielgtaylor/huma/v2"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// openAPIPath is the one path that needs no token.
const openAPIPath = "/openapi.json"

func humaConfig(version string) huma.Config {
	c := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:   "Perigee node",
				Version: version,
				Description: "The HTTP API of one node of Perigee, a decentralised compute-over-data network. " +
					"Over TCP every request carries the node's token; on the node's Unix socket none is needed. " +
					"Every error is a Problem. Times are RFC 3339, amounts micro-credits, sizes bytes.",
				License: &huma.License{Name: "Apache-2.0 OR MIT"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token": {Type: "http", Scheme: "bearer", Description: "the content of the file token in the node's home directory"},
				},
			},
			Security: []map[string][]string{{"token": {}}},
			Tags: []*huma.Tag{
				{Name: "node", Description: "The node and its peers"},
				{Name: "data", Description: "Content-addressed data"},
				{Name: "datasets", Description: "Named data whose parts may lie on many nodes"},
				{Name: "jobs", Description: "Work asked for by this node"},
				{Name: "receipts", Description: "Signed records of executions"},
				{Name: "providers", Description: "Who offers to run work"},
			},
		},
		Formats:       huma.DefaultFormats,
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{fromHuma},
	}
	return c
}

// media documents what goes in or out of an operation whose types say only that
// it is bytes.
type media struct {
	in, out map[string]any // media type to a value of its type, nil for bytes
	events  map[string]any // server-sent events and their data
}

func documented() map[string]media {
	added := map[string]any{"application/json": client.Added{}}
	progress := func(result any) map[string]any {
		return map[string]any{eventProgress: client.Progress{}, eventResult: result, eventProblem: client.Problem{}, eventEnd: struct{}{}}
	}
	job := map[string]any{"application/yaml": perigee.Job{}, "application/json": perigee.Job{}}
	return map[string]media{
		"AddPath":   {out: added, events: progress(client.Added{})},
		"Pin":       {out: map[string]any{"application/json": client.DataInfo{}}, events: progress(client.DataInfo{})},
		"Verify":    {out: map[string]any{"application/json": client.VerifyReport{}}, events: progress(client.VerifyReport{})},
		"GC":        {out: map[string]any{"application/json": client.GCReport{}}, events: progress(client.GCReport{})},
		"Upload":    {in: map[string]any{tarType: nil, rawType: nil}},
		"ImportCAR": {in: map[string]any{carType: nil}},
		"ExportCAR": {out: map[string]any{carType: nil}},
		"Tar":       {out: map[string]any{tarType: nil}},
		"File":      {out: map[string]any{rawType: nil}},
		"Submit":    {in: job},
		"Explain":   {in: job},
		"Watch":     {events: map[string]any{eventJob: perigee.JobStatus{}, eventProblem: client.Problem{}, eventEnd: struct{}{}}},
		"Logs": {out: map[string]any{"application/x-ndjson": client.LogChunk{}},
			events: map[string]any{eventLog: client.LogChunk{}, eventProblem: client.Problem{}, eventEnd: struct{}{}}},
		"VerifyReceipt": {in: map[string]any{"application/cbor": nil, "application/json": perigee.Receipt{}}},
	}
}

// document completes what huma derived from types and freezes the document.
func (s *Server) document() {
	doc := s.huma.OpenAPI()
	schemas := doc.Components.Schemas
	problemSchema := schemas.Schema(reflect.TypeFor[client.Problem](), true, "Problem")
	more := documented()
	for _, item := range doc.Paths {
		for _, o := range []*huma.Operation{item.Get, item.Post} {
			if o == nil {
				continue
			}
			o.Responses["default"] = &huma.Response{Description: "Problem",
				Content: map[string]*huma.MediaType{problemType: {Schema: problemSchema}}}
			if m, ok := more[o.OperationID]; ok {
				m.apply(o, schemas)
			}
		}
	}
	submit := doc.Paths["/v1/jobs"].Post
	accepted := *submit.Responses["202"]
	accepted.Description = "The job is finished"
	submit.Responses["200"] = &accepted
	s.documentPlain(doc)
	for _, unused := range []string{"ErrorModel", "ErrorDetail"} {
		delete(schemas.Map(), unused)
	}
	spec, err := json.Marshal(doc)
	if err != nil {
		panic(err) // the document is made of this package's own types
	}
	s.spec = spec
}

// documentPlain adds what is served without huma.
func (s *Server) documentPlain(doc *huma.OpenAPI) {
	text := func(mediaType, description string) map[string]*huma.Response {
		return map[string]*huma.Response{"200": {Description: description, Content: map[string]*huma.MediaType{mediaType: {Schema: &huma.Schema{Type: "string"}}}}}
	}
	doc.AddOperation(&huma.Operation{OperationID: "Metrics", Method: http.MethodGet, Path: "/metrics", Tags: []string{"node"},
		Summary: "Metrics for Prometheus", Responses: text("text/plain", "Prometheus text format")})
	doc.AddOperation(&huma.Operation{OperationID: "OpenAPI", Method: http.MethodGet, Path: openAPIPath, Tags: []string{"node"},
		Summary: "This document", Security: []map[string][]string{{}}, Responses: text("application/json", "OpenAPI 3.1")})
}

func (m media) apply(o *huma.Operation, schemas huma.Registry) {
	schemaOf := func(v any) *huma.Schema {
		if v == nil {
			return &huma.Schema{Type: "string", Format: "binary"}
		}
		return schemas.Schema(reflect.TypeOf(v), true, o.OperationID)
	}
	if m.in != nil {
		o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{}}
		for name, v := range m.in {
			o.RequestBody.Content[name] = &huma.MediaType{Schema: schemaOf(v)}
		}
	}
	if m.out == nil && m.events == nil {
		return
	}
	ok := &huma.Response{Description: "OK", Content: map[string]*huma.MediaType{}}
	o.Responses["200"] = ok
	for name, v := range m.out {
		ok.Content[name] = &huma.MediaType{Schema: schemaOf(v)}
	}
	if m.events != nil {
		ok.Content["text/event-stream"] = &huma.MediaType{Schema: eventSchema(m.events, schemaOf)}
	}
}

// eventSchema describes a stream as an array of its possible events.
func eventSchema(events map[string]any, schemaOf func(any) *huma.Schema) *huma.Schema {
	names := make([]string, 0, len(events))
	for name := range events {
		names = append(names, name)
	}
	sort.Strings(names)
	var kinds []*huma.Schema
	for _, name := range names {
		data := &huma.Schema{Type: "object"}
		if name != eventEnd {
			data = schemaOf(events[name])
		}
		kinds = append(kinds, &huma.Schema{Type: "object", Title: name, Required: []string{"event", "data"}, Properties: map[string]*huma.Schema{
			"event": {Type: "string", Enum: []any{name}},
			"data":  data,
		}})
	}
	return &huma.Schema{Type: "array", Description: "server-sent events", Items: &huma.Schema{OneOf: kinds}}
}

func (s *Server) serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/vnd.oai.openapi+json;version=3.1")
	_, _ = w.Write(s.spec)
}
