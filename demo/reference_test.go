package demo

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee/demo/flightstat"
)

// reference computes the job's table in the plainest way: one process reads all
// tables with encoding/csv, keeps every delay, and sorts. It shares nothing
// with package flightstat but the definition of the columns.
var reference = sync.OnceValues(func() (string, error) {
	delays := map[string][]float64{}
	for _, name := range Tables() {
		text, err := Table(name)
		if err != nil {
			return "", err
		}
		rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
		if err != nil {
			return "", err
		}
		for _, row := range rows[1:] {
			delay, err := strconv.ParseFloat(row[1], 64)
			if err != nil {
				return "", err
			}
			delays[row[3]] = append(delays[row[3]], delay)
		}
	}
	codes := make([]string, 0, len(delays))
	for code := range delays {
		codes = append(codes, code)
	}
	sort.Slice(codes, func(i, j int) bool {
		a, b := len(delays[codes[i]]), len(delays[codes[j]])
		return a > b || a == b && codes[i] < codes[j]
	})
	var out strings.Builder
	out.WriteString("airport,departures,mean_delay,worst_decile\n")
	for _, code := range codes {
		d := delays[code]
		sort.Sort(sort.Reverse(sort.Float64Slice(d)))
		worst := d[:int(math.Ceil(float64(len(d))/10))]
		fmt.Fprintf(&out, "%s,%d,%s,%s\n", code, len(d), mean(d), mean(worst))
	}
	return out.String(), nil
})

// mean is the mean with one decimal, halves away from zero. The sums are whole
// minutes and exact in a float64.
func mean(d []float64) string {
	sum := 0.0
	for _, x := range d {
		sum += x
	}
	tenths := math.Round(10 * sum / float64(len(d)))
	if tenths == 0 {
		return "0.0"
	}
	return strconv.FormatFloat(tenths/10, 'f', 1, 64)
}

func TestTables(t *testing.T) {
	require.Equal(t, []string{"flights-2001-01.csv", "flights-2001-02.csv", "flights-2001-03.csv",
		"flights-2001-04.csv", "flights-2001-05.csv", "flights-2001-06.csv"}, Tables())
	rows := 0
	for _, name := range Tables() {
		text, err := Table(name)
		require.NoError(t, err)
		rows += bytes.Count(text, []byte("\n")) - 1
	}
	require.Equal(t, 1_000_000, rows)
}

// TestProgramsEqualReference runs the map program on each month by itself and
// the merge program on what they wrote, natively, and compares with the plain
// computation. TestDemo does the same with the network's result.
func TestProgramsEqualReference(t *testing.T) {
	want, err := reference()
	require.NoError(t, err)

	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "./flights", "./flightsmerge")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for i, name := range Tables() {
		text, err := Table(name)
		require.NoError(t, err)
		in := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(in, text, 0o644))
		part := filepath.Join(dir, "parts", strconv.Itoa(i), "out")
		require.NoError(t, os.MkdirAll(part, 0o755))
		out, err := exec.Command(filepath.Join(dir, "flights"), in, part).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	out, err = exec.Command(filepath.Join(dir, "flightsmerge"), filepath.Join(dir, "parts"), dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "1000000 departures from 228 airports")
	got, err := os.ReadFile(filepath.Join(dir, "airports.csv"))
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// A split at any line gives the same sum: the property that lets the job run in
// parts.
func TestAnySplitGivesTheSameSum(t *testing.T) {
	text, err := Table(Tables()[0])
	require.NoError(t, err)
	var whole flightstat.Summary
	_, err = whole.ReadCSV(bytes.NewReader(text))
	require.NoError(t, err)
	var sum flightstat.Summary
	for start := 0; start < len(text); {
		end := min(start+len(text)/7, len(text))
		if i := bytes.IndexByte(text[end:], '\n'); i >= 0 {
			end += i + 1
		}
		var part flightstat.Summary
		_, err := part.ReadCSV(bytes.NewReader(text[start:end]))
		require.NoError(t, err)
		b, err := part.MarshalBinary()
		require.NoError(t, err)
		require.NoError(t, sum.AddBinary(b))
		start = end
	}
	require.Equal(t, whole.Airports(), sum.Airports())
}
