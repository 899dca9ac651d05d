package api_test

import (
	"encoding/json"
	"flag"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files")

// openAPI is as much of the document as the test reads.
type openAPI struct {
	OpenAPI    string `json:"openapi"`
	Paths      map[string]map[string]operation
	Components struct {
		Schemas map[string]json.RawMessage
	}
}

type operation struct {
	OperationID string `json:"operationId"`
	Summary     string
	RequestBody *struct {
		Content map[string]json.RawMessage
	}
	Parameters []struct{ Name, In string }
	Responses  map[string]struct {
		Content map[string]json.RawMessage
	}
}

// TestOpenAPI compares what the document promises with what it promised before:
// every path, method, parameter and media type, in testdata/routes.golden.
func TestOpenAPI(t *testing.T) {
	_, url := overTCP(t, newMemory())
	resp, body := ask(t, "GET", url+"/openapi.json", "", "Authorization", "")
	require.Equal(t, 200, resp.StatusCode)
	var doc openAPI
	require.NoError(t, json.Unmarshal([]byte(body), &doc))
	require.Equal(t, "3.1.0", doc.OpenAPI)

	var lines []string
	for path, methods := range doc.Paths {
		for method, o := range methods {
			require.NotEmpty(t, o.Summary, path)
			require.NotEmpty(t, o.OperationID, path)
			line := []string{strings.ToUpper(method), path, o.OperationID}
			for _, p := range o.Parameters {
				line = append(line, p.In+":"+p.Name)
			}
			if o.RequestBody != nil {
				line = append(line, "takes "+strings.Join(keys(o.RequestBody.Content), ","))
			}
			for _, status := range keys(o.Responses) {
				if status != "default" {
					line = append(line, status+" "+strings.Join(keys(o.Responses[status].Content), ","))
				}
			}
			if strings.HasPrefix(path, "/v1/") {
				require.Contains(t, o.Responses, "default", path)
				require.Contains(t, o.Responses["default"].Content, "application/problem+json", path)
			}
			lines = append(lines, strings.Join(line, " | "))
		}
	}
	sort.Strings(lines)
	got := strings.Join(lines, "\n") + "\n"
	const golden = "testdata/routes.golden"
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "if the change is meant: go test ./api -run OpenAPI -update")

	for name := range doc.Components.Schemas {
		require.False(t, strings.HasPrefix(name, "Error"), "%s is not this API's", name)
	}
	for _, name := range []string{"Job", "JobStatus", "Problem", "Receipt", "Status", "LogChunk"} {
		require.Contains(t, doc.Components.Schemas, name)
	}
}

// TestEveryRouteDocumented asks for each documented path: none may be unknown.
func TestEveryRouteDocumented(t *testing.T) {
	_, url := overTCP(t, newMemory())
	_, body := ask(t, "GET", url+"/openapi.json", "")
	var doc openAPI
	require.NoError(t, json.Unmarshal([]byte(body), &doc))
	fill := strings.NewReplacer("{cid}", someCID.String(), "{id}", "x", "{owner}", string(testAccount), "{name}", "x")
	for path, methods := range doc.Paths {
		for method := range methods {
			resp, body := ask(t, strings.ToUpper(method), url+fill.Replace(path), "", "Content-Type", "application/json")
			require.NotEqual(t, 405, resp.StatusCode, path)
			require.NotEqual(t, 500, resp.StatusCode, "%s: %s", path, body)
			require.NotContains(t, body, "there is no /v1", path)
		}
	}
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
