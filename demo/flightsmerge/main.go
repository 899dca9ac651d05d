// Command flightsmerge is the merge program of Perigee's demo: it adds the
// summaries (summary.bin) below the directory it is given, prints the busiest
// airports as a table and writes all of them to OUT/airports.csv. See package
// flightstat.
//
//	flightsmerge [PARTS [OUT]]	(default /parts /out)
//
// The build compiles it to WebAssembly (WASI preview 1); it also runs natively.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/perigee-network/perigee/demo/flightstat"
)

// shown is how many airports the printed table has.
const shown = 15

func main() {
	parts, out := "/parts", "/out"
	if len(os.Args) > 1 {
		parts = os.Args[1]
	}
	if len(os.Args) > 2 {
		out = os.Args[2]
	}
	if err := run(parts, out); err != nil {
		os.Stderr.WriteString("flightsmerge: " + err.Error() + "\n")
		os.Exit(1)
	}
}

func run(parts, out string) error {
	var sum flightstat.Summary
	files := 0
	err := filepath.WalkDir(parts, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "summary.bin" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if err := sum.AddBinary(b); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if files == 0 {
		return fmt.Errorf("no summary.bin below %s", parts)
	}
	all := sum.Airports()
	if err := os.WriteFile(filepath.Join(out, "airports.csv"), flightstat.CSV(all), 0o644); err != nil {
		return err
	}
	return table(all)
}

// table prints the busiest airports.
func table(all []flightstat.Airport) error {
	departures := int64(0)
	for _, a := range all {
		departures += a.Departures
	}
	fmt.Printf("%-7s %10s %10s %12s\n", "airport", "departures", "mean delay", "worst decile")
	for _, a := range all[:min(shown, len(all))] {
		fmt.Printf("%-7s %10d %10s %12s\n", a.Code, a.Departures, a.Mean(), a.WorstMean())
	}
	_, err := fmt.Printf("%d departures from %d airports; delays in minutes\n", departures, len(all))
	return err
}
