package flightstat

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

const table = `date,delay,distance,origin,destination
2001-01-01 00:01,33,2176,LAS,PHL
2001-01-01 00:01,-13,2345,ANC,LAX
2001-01-01 00:02,7,100,LAS,PHL

2001-01-01 00:03,1688,100,LAS,PHL
`

func TestReadCSV(t *testing.T) {
	for name, text := range map[string]string{
		"unix":          table,
		"dos":           strings.ReplaceAll(table, "\n", "\r\n"),
		"no last line":  strings.TrimSuffix(table, "\n"),
		"more columns":  strings.ReplaceAll(table, "PHL", "PHL,extra,,"),
		"two headings":  CSVHeading + table,
		"empty columns": strings.ReplaceAll(table, ",100,", ",,"),
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
				var s Summary
				n, err := s.ReadCSV(r)
				require.NoError(t, err)
				require.EqualValues(t, 4, n)
				require.Equal(t, []Airport{
					{Code: "LAS", Departures: 3, Delay: 1728, Worst: 1, WorstDelay: 1688},
					{Code: "ANC", Departures: 1, Delay: -13, Worst: 1, WorstDelay: -13},
				}, s.Airports())
			}
		})
	}
}

// CSVHeading is the heading of the table above.
const CSVHeading = "date,delay,distance,origin,destination\n"

func TestReadCSVRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"columns":       {CSVHeading + "a,1,2\n", "line 2"},
		"delay":         {"a,x,2,LAS,PHL\n", `"x" is not a delay`},
		"no delay":      {"a,-,2,LAS,PHL\n", "is not a delay"},
		"huge delay":    {"a,99999999999999999999,2,LAS,PHL\n", "is not a delay"},
		"too late":      {"a,28801,2,LAS,PHL\n", "is not a delay"},
		"too early":     {"a,-2881,2,LAS,PHL\n", "is not a delay"},
		"airport":       {"a,1,2,las,PHL\n", "is not an airport"},
		"long airport":  {"a,1,2,LASX,PHL\n", "is not an airport"},
		"endless line":  {strings.Repeat("a", 3<<20), "longer than"},
		"a later chunk": {strings.Repeat("a,1,2,LAS,PHL\n", 1e5) + "b\n", "line 100001"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := new(Summary).ReadCSV(strings.NewReader(c.text))
			require.ErrorContains(t, err, c.says)
		})
	}
	broken := errors.New("the disk broke")
	_, err := new(Summary).ReadCSV(iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
}

func TestBinaryKeepsEverything(t *testing.T) {
	var s Summary
	_, err := s.ReadCSV(strings.NewReader(table))
	require.NoError(t, err)
	s.count(0, MinDelay, 7)
	s.count(letters*letters*letters-1, MaxDelay, 1<<32-1)
	b, err := s.MarshalBinary()
	require.NoError(t, err)

	var back Summary
	require.NoError(t, back.AddBinary(b))
	require.Equal(t, s.Airports(), back.Airports())
	again, err := back.MarshalBinary()
	require.NoError(t, err)
	require.Equal(t, b, again)

	var merged Summary
	merged.Merge(&back)
	require.Equal(t, s.Airports(), merged.Airports())
	for n := range b {
		err := new(Summary).AddBinary(b[:n])
		if err == nil {
			// A cut between two airports is a shorter summary, which is whole.
			continue
		}
		require.NotEmpty(t, err.Error())
	}
	require.ErrorContains(t, back.AddBinary(b), "count", "a sum past 32 bits is refused, not wrapped")
}

func TestTenths(t *testing.T) {
	for want, c := range map[string][2]int64{
		"0.0": {0, 3}, "0.1": {1, 20}, "-0.1": {-1, 20}, "-12.3": {-123, 10}, "3.3": {10, 3}, "-3.3": {-10, 3}, "1.0": {99, 100},
	} {
		require.Equal(t, want, tenths(c[0], c[1]))
	}
	require.Equal(t, "0.0", tenths(-1, 1000), "no negative zero")
	require.Equal(t, "0.0", tenths(0, 0))
}

func FuzzAddBinary(f *testing.F) {
	var s Summary
	if _, err := s.ReadCSV(strings.NewReader(table)); err != nil {
		f.Fatal(err)
	}
	b, err := s.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Summary
		if s.AddBinary(b) != nil {
			return
		}
		// Varints have longer forms of the same number, so only what was
		// read, not the bytes, must come back.
		again, err := s.MarshalBinary()
		require.NoError(t, err)
		var back Summary
		require.NoError(t, back.AddBinary(again))
		require.Equal(t, s.Airports(), back.Airports())
	})
}

func FuzzReadCSV(f *testing.F) {
	f.Add([]byte(table))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Summary
		n, err := s.ReadCSV(bytes.NewReader(b))
		if err != nil {
			return
		}
		total := int64(0)
		for _, a := range s.Airports() {
			total += a.Departures
		}
		require.Equal(t, n, total)
	})
}
