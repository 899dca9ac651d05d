package perigee

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sample uses every key there is.
const sample = `name: error-count
type: batch                # batch | service | function
wasm: {module: ./count.wasm, args: [-level, ERROR, /in, 3, 1.50, true], env: {LANG: C, N: 007}, workdir: /in}
# container: {image: docker.io/library/redis:7}
inputs:
  - {source: acme/web-logs, mount: /in, split: file}
  - source: bafkqaaa
    mount: /ref
outputs: [/out]
merge: {module: ./sum.wasm, args: [/parts]}
resources: {cpu: 1, memory: 512MiB, disk: 1GiB, files: 5_000, timeout: 10m, fuel: 50e9, gpu: {count: 0, model: ""}}
placement: {regions: [EU, US/CA], exclude: [EU/DE], attested_by: [], max_transfer: 100MiB}
price: {max_total: 5.0}
verify: {mode: replicate, copies: 3, quorum: 2}
reuse: own
retention: 24h
attempts: 3
stream_logs: true
`

func sampleJob() *Job {
	five := 5.0
	return &Job{
		Name: "error-count", Type: "batch",
		Wasm:      &Wasm{Module: "./count.wasm", Args: []string{"-level", "ERROR", "/in", "3", "1.50", "true"}, Env: map[string]string{"LANG": "C", "N": "007"}, Workdir: "/in"},
		Inputs:    []Input{{Source: "acme/web-logs", Mount: "/in", Split: "file"}, {Source: "bafkqaaa", Mount: "/ref"}},
		Outputs:   []string{"/out"},
		Merge:     &Wasm{Module: "./sum.wasm", Args: []string{"/parts"}},
		Resources: Resources{CPU: 1, Memory: 512 << 20, Disk: 1 << 30, Files: 5000, Timeout: Duration(10 * time.Minute), Fuel: 50e9},
		Placement: Placement{Regions: []string{"EU", "US/CA"}, Exclude: []string{"EU/DE"}, MaxTransfer: 100 << 20},
		Price:     Price{MaxTotal: &five},
		Verify:    Verify{Mode: "replicate", Copies: 3, Quorum: 2},
		Reuse:     "own", Retention: Duration(24 * time.Hour), Attempts: 3, StreamLogs: true,
	}
}

func TestParseJob(t *testing.T) {
	job, err := ParseJob([]byte(sample))
	require.NoError(t, err)
	// The lists that name nothing are empty, not absent.
	require.Equal(t, sampleJob(), job)
	require.NoError(t, job.Normalize())
}

func TestParseJobJSON(t *testing.T) {
	text, err := json.MarshalIndent(sampleJob(), "", "\t")
	require.NoError(t, err)
	job, err := ParseJob(text)
	require.NoError(t, err)
	require.Equal(t, sampleJob(), job)

	// Forms that JSON and YAML read differently.
	job, err = ParseJob([]byte("{\"name\":\"\\ud83d\\ude00\\/\",\t\"wasm\":{\"module\":\"m\",\"args\":[1e3]},\"resources\":{\"memory\":1048576}}"))
	require.NoError(t, err)
	require.Equal(t, "😀/", job.Name)
	require.Equal(t, []string{"1e3"}, job.Wasm.Args)
	require.Equal(t, Size(1<<20), job.Resources.Memory)

	_, err = ParseJob([]byte("{\n\"wasm\": {\"module\": \"m\"},\n\"inputs\": [\n  {\"surce\": \"x\"}\n]}"))
	require.EqualError(t, err, `line 4: unknown key "surce" in inputs[0]; did you mean "source"?`)
}

func TestParseJobShortForms(t *testing.T) {
	job, err := ParseJob([]byte("wasm: {module: m, args: , env: {EMPTY: , TEXT: ''}}\nverify: replicate=5/3\ninputs:\nresources:\nprice: {max_total: }\n"))
	require.NoError(t, err)
	require.Equal(t, &Job{Wasm: &Wasm{Module: "m", Env: map[string]string{"EMPTY": "", "TEXT": ""}}, Verify: Verify{"replicate", 5, 3}}, job)

	job, err = ParseJob([]byte("wasm: &w {module: m}\nmerge: *w\n"))
	require.NoError(t, err)
	require.Equal(t, "m", job.Merge.Module)
}

func TestParseJobFaults(t *testing.T) {
	for name, c := range map[string]struct {
		text, want string
		kind       Kind
	}{
		"unknown key":      {"name: x\n\n\nresources:\n  cpu: 1\n\n  memroy: 1GiB", `line 7: unknown key "memroy" in resources; did you mean "memory"?`, Invalid},
		"swapped letters":  {"wsam: {module: m}", `line 1: unknown key "wsam"; did you mean "wasm"?`, Invalid},
		"capital letters":  {"Wasm: {module: m}", `line 1: unknown key "Wasm"; did you mean "wasm"?`, Invalid},
		"like nothing":     {"wasm: {qqqqqq: m}", `line 1: unknown key "qqqqqq" in wasm; the keys here are module, args, env, workdir`, Invalid},
		"like a later one": {"contaner: {image: x}", `line 1: unknown key "contaner"; did you mean "container"?`, Invalid},
		"merge key":        {"wasm: &w {module: m}\nmerge: {<<: *w}", `line 2: unknown key "<<" in merge; the keys here are module, args, env, workdir`, Invalid},
		"twice":            {"name: a\nname: b", `line 2: key "name" stands twice; the first is in line 1`, Invalid},
		"twice in env":     {"wasm:\n  env:\n    A: 1\n    A: 2", `line 4: "A" stands twice in wasm.env`, Invalid},
		"text for list":    {"outputs: /out", `line 1: outputs is the text "/out" where a list is expected, such as outputs: [/out]`, Invalid},
		"map for list":     {"inputs: {source: x}", `line 1: inputs is a mapping of keys where a list is expected, such as inputs: [{source: DIR, mount: /in}]`, Invalid},
		"text for map":     {"wasm: m.wasm", `line 1: wasm is the text "m.wasm" where keys and values are expected, such as wasm: {module: FILE.wasm}`, Invalid},
		"text for env":     {"wasm: {env: A=1}", `line 1: wasm.env is the text "A=1" where a mapping of names to texts is expected, such as env: {LANG: C}`, Invalid},
		"text in list":     {"inputs:\n- DIR", `line 2: inputs[0] is the text "DIR" where keys and values are expected, such as inputs: {source: DIR, mount: /in}`, Invalid},
		"number for text":  {"name: 12", `line 1: name is the number 12 where text is expected, such as name: "12"`, Invalid},
		"date for text":    {"name: 2024-01-01", `line 1: name is the date 2024-01-01 where text is expected, such as name: "2024-01-01"`, Invalid},
		"text for number":  {"resources: {cpu: many}", `line 1: resources.cpu is the text "many" where a whole number is expected, such as cpu: 2`, Invalid},
		"fraction":         {"attempts: 1.5", `line 1: attempts is the number 1.5 where a whole number is expected, such as attempts: 2`, Invalid},
		"huge number":      {"attempts: 99999999999", `line 1: attempts is the number 99999999999 where a whole number is expected, such as attempts: 2`, Invalid},
		"list for size":    {"resources: {memory: [1]}", `line 1: resources.memory is a list where a size is expected, such as memory: 512MiB`, Invalid},
		"bad size":         {"resources: {memory: 512M}", `line 1: resources.memory: "512M" is ambiguous; write 512MiB (powers of 1024) or 512MB (powers of 1000)`, Invalid},
		"bad duration":     {"retention: 24", `line 1: retention: "24" needs a unit; write 24s for seconds or 24m for minutes`, Invalid},
		"text for price":   {"price: {max_total: much}", `line 1: price.max_total is the text "much" where a number is expected, such as max_total: 2.5`, Invalid},
		"infinite price":   {"price: {max_total: .inf}", `line 1: price.max_total is the number .inf where a number is expected, such as max_total: 2.5`, Invalid},
		"yes for bool":     {"stream_logs: yes", `line 1: stream_logs is the text "yes" where true or false is expected, such as stream_logs: true`, Invalid},
		"list in args":     {"wasm:\n  args: [[a]]", `line 2: wasm.args[0] is a list where text is expected`, Invalid},
		"short verify":     {"verify: replicate=4/2", `line 1: verify: quorum 2 of 4 copies could be reached by two different results; it must be at least 3`, Invalid},
		"list at the root": {"- a", `line 1: the job file is a list where keys and values are expected, such as wasm: {module: FILE.wasm}`, Invalid},
		"empty":            {" \n", `the job file is empty; it needs at least wasm: {module: FILE.wasm}`, Invalid},
		"only a comment":   {"# nothing", `the job file is empty; it needs at least wasm: {module: FILE.wasm}`, Invalid},
		"two documents":    {"name: a\n---\nname: b", `the job file holds more than one document; give each job a file of its own`, Invalid},
		"not UTF-8":        {"name: \xff", `the job file is not UTF-8 text`, Invalid},
		"malformed":        {"name: [", `the job file is not valid YAML: line 1: did not find expected node content`, Invalid},
		"container":        {"container: {image: redis}", `line 1: container: containers are not built yet; give the program as wasm: {module: FILE.wasm}`, Unsupported},
		"GPU":              {"resources: {gpu: {count: 1}}", `line 1: resources.gpu: GPUs are not built yet`, Unsupported},
		"attested":         {"placement: {attested_by: [z6Mk]}", `line 1: placement.attested_by: attestations are not built yet`, Unsupported},
	} {
		t.Run(name, func(t *testing.T) {
			job, err := ParseJob([]byte(c.text))
			require.Nil(t, job)
			require.EqualError(t, err, c.want)
			require.Equal(t, c.kind, KindOf(err))
		})
	}
}

func TestParseJobReportsFaultsTogether(t *testing.T) {
	_, err := ParseJob([]byte("nam: x\nresources:\n  cpu: many\noutputs: /out\n"))
	require.EqualError(t, err, strings.Join([]string{
		`line 1: unknown key "nam"; did you mean "name"?`,
		`line 3: resources.cpu is the text "many" where a whole number is expected, such as cpu: 2`,
		`line 4: outputs is the text "/out" where a list is expected, such as outputs: [/out]`,
	}, "\n"))

	many := strings.Builder{}
	for i := range 1000 {
		fmt.Fprintf(&many, "key%d: 1\n", i)
	}
	_, err = ParseJob([]byte(many.String()))
	require.Equal(t, 9, strings.Count(err.Error(), "\n"))
}

func TestParseJobIsBounded(t *testing.T) {
	_, err := ParseJob([]byte("name: " + strings.Repeat("x", MaxJobFile)))
	require.EqualError(t, err, "the job file has 1048582 bytes; at most 1048576 are allowed")

	bomb := strings.Builder{}
	bomb.WriteString("wasm: {module: m, args: &a [" + strings.Repeat("x,", 5000) + "]}\nmerge: &m {module: m, args: *a}\ninputs:\n")
	for range 200 {
		bomb.WriteString("- source: x\n")
	}
	_, err = ParseJob([]byte(bomb.String()))
	require.NoError(t, err)

	bomb.Reset()
	bomb.WriteString("inputs:\n- &i {source: x, mount: /in, split: file}\n" + strings.Repeat("- *i\n", 200_000))
	_, err = ParseJob([]byte(bomb.String()))
	require.ErrorContains(t, err, "the job file holds more than 100000 values, aliases counted each time")

	loop := "wasm: &a\n  module: m\n  env: *a\n"
	_, err = ParseJob([]byte(loop))
	require.ErrorIs(t, err, Invalid)

	for _, deep := range []string{strings.Repeat("[", 50_000), strings.Repeat("{a: ", 50_000), `{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "}"} {
		start := time.Now()
		_, err = ParseJob([]byte(deep))
		require.ErrorIs(t, err, Invalid)
		require.Less(t, time.Since(start), 10*time.Second)
	}
}

// FuzzParseJob checks that no file crashes the parser, that what it accepts is
// normalized stably, and that the JSON of a job says the same as the job.
func FuzzParseJob(f *testing.F) {
	text, err := json.Marshal(sampleJob())
	require.NoError(f, err)
	for _, s := range []string{sample, string(text), "a: &a [*a]", "wasm: {module: m}\nverify: audit", "- a", "{", "? [a]\n: b", "wasm: !!binary aGk=", "name: !!int x", "\ufeffname: x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		job, err := ParseJob(data)
		if err != nil {
			require.Contains(t, []Kind{Invalid, Unsupported}, KindOf(err))
			require.LessOrEqual(t, len(err.Error()), 16<<10)
			return
		}
		if err := job.Normalize(); err != nil {
			require.Contains(t, []Kind{Invalid, Unsupported}, KindOf(err))
			return
		}
		b, err := json.Marshal(job)
		require.NoError(t, err)
		again, err := ParseJob(b)
		require.NoError(t, err, string(b))
		require.NoError(t, again.Normalize())
		b2, err := json.Marshal(again)
		require.NoError(t, err)
		require.Equal(t, string(b), string(b2))
	})
}
