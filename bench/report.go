package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// times are the durations of one measurement's runs.
type times []time.Duration

// percentile returns the time that p per cent of the runs stay within, in
// milliseconds.
func (t times) percentile(p int) float64 {
	if len(t) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(t))
	return float64(s[min(len(s)*p/100, len(s)-1)]) / 1e6
}

// report is what one run of the benchmark measured.
type report struct {
	Started time.Time `json:"started"`
	Machine machine   `json:"machine"`
	Limits  limits    `json:"limits"`
	Results []result  `json:"results"`
}

type machine struct {
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"`
	OS    string `json:"os"`
	Go    string `json:"go"`
}

// limits are what the machine itself can do, measured in the same run.
type limits struct {
	SHA256One  float64 `json:"sha256_one_core_mb_per_s"`
	SHA256All  float64 `json:"sha256_all_cores_mb_per_s"`
	Loopback   float64 `json:"loopback_tcp_mb_per_s"`
	RoundTrip  float64 `json:"loopback_round_trip_ms"` // of one byte, p50
	StartP50   float64 `json:"perigee_version_ms"`     // process start, p50
	DiskWrites float64 `json:"file_write_and_sync_mb_per_s"`
}

// result is a line of the table.
type result struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"` // "ms", "jobs/s" or "MB/s"
	Value float64 `json:"value,omitempty"`
	P50   float64 `json:"p50,omitempty"`
	P95   float64 `json:"p95,omitempty"`
	Runs  int     `json:"runs,omitempty"`
	Limit string  `json:"limit"` // the machine's own, beside it
}

func thisMachine() machine {
	return machine{CPU: cpuName(), Cores: cores(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
}

// cpuName reads the processor's name where the system tells it in a file.
func cpuName() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "model name"); ok {
			return strings.Trim(name, "\t: ")
		}
	}
	return "unknown"
}

// latency adds a line of times.
func (r *report) latency(name string, t times, limit string) {
	r.Results = append(r.Results, result{Name: name, Unit: "ms", P50: t.percentile(50), P95: t.percentile(95), Runs: len(t), Limit: limit})
}

// speed adds a line of bytes moved in some seconds.
func (r *report) speed(name string, bytes int64, seconds float64, limit string) {
	r.Results = append(r.Results, result{Name: name, Unit: "MB/s", Value: float64(bytes) / seconds / 1e6, Limit: limit})
}

// print writes the table.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d cores, %s, %s\n\n", r.Machine.CPU, r.Machine.Cores, r.Machine.OS, r.Machine.Go)
	fmt.Fprintf(w, "%-46s %18s   %s\n", "what", "measured", "the machine's own limit")
	for _, x := range r.Results {
		value := fmt.Sprintf("%.0f %s", x.Value, x.Unit)
		if x.Unit == "ms" {
			value = fmt.Sprintf("%.2f / %.2f ms", x.P50, x.P95)
		}
		fmt.Fprintf(w, "%-46s %18s   %s\n", x.Name, value, x.Limit)
	}
	fmt.Fprintf(w, "\nLatencies are p50 / p95. MB are 10^6 bytes.\n")
}

// write puts the report into a file, as JSON.
func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
