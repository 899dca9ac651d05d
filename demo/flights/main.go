// Command flights is the map program of Perigee's demo: it counts the flights
// of every CSV table below the directory (or file) it is given by airport and
// delay and writes the counts to OUT/summary.bin. See package flightstat.
//
//	flights [IN [OUT]]	(default /in /out)
//
// The build compiles it to WebAssembly (WASI preview 1); it also runs natively.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/perigee-network/perigee/demo/flightstat"
)

func main() {
	in, out := "/in", "/out"
	if len(os.Args) > 1 {
		in = os.Args[1]
	}
	if len(os.Args) > 2 {
		out = os.Args[2]
	}
	if err := run(in, out); err != nil {
		os.Stderr.WriteString("flights: " + err.Error() + "\n")
		os.Exit(1)
	}
}

func run(in, out string) error {
	var sum flightstat.Summary
	var files, flights int64
	err := filepath.WalkDir(in, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || (path != in && !strings.HasSuffix(path, ".csv")) {
			return nil
		}
		n, err := readFile(&sum, path)
		files++
		flights += n
		return err
	})
	if err != nil {
		return err
	}
	if files == 0 {
		return fmt.Errorf("no .csv file below %s", in)
	}
	b, err := sum.MarshalBinary()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "summary.bin"), b, 0o644); err != nil {
		return err
	}
	_, err = fmt.Printf("%d flights in %d files\n", flights, files)
	return err
}

func readFile(sum *flightstat.Summary, path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := sum.ReadCSV(f)
	if err != nil {
		return n, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}
