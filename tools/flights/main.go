// Command flights makes the data of Perigee's demo: one million flights from
// the flights-3m table of the npm package vega-datasets 3.2.1, as one
// compressed CSV file for each month. See demo/data/README.md.
//
// It is a module of its own so that reading Parquet is no dependency of Perigee.
//
//	go run . flights-3m.parquet ../../demo/data
package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
)

const (
	// tableHash is the table's Git blob hash, as the package's datapackage.json gives it.
	tableHash = "9c4e0b480a1a60954a7e5c6bcc43e1c91a73caaa"
	// every is the stride of the selection: the table holds three million
	// flights in order of time, so every third gives an even million.
	every = 3
	rows  = 1_000_000
)

// flight is a row of the table. No column is null in it.
type flight struct {
	Date        int64  `parquet:"date"` // microseconds since 1970, local time of departure
	Delay       int64  `parquet:"delay"`
	Distance    int64  `parquet:"distance"`
	Origin      string `parquet:"origin"`
	Destination string `parquet:"destination"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: flights flights-3m.parquet OUTPUT-DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "flights:", err)
		os.Exit(1)
	}
}

func run(table, dir string) error {
	raw, err := os.ReadFile(table)
	if err != nil {
		return err
	}
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(raw)), raw...))
	if hash := hex.EncodeToString(sum[:]); hash != tableHash {
		return fmt.Errorf("%s is not the table of vega-datasets 3.2.1: its Git blob hash is %s, not %s", table, hash, tableHash)
	}
	all, err := parquet.Read[flight](bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		return err
	}
	months := map[string]*bytes.Buffer{}
	taken := 0
	for i := 0; i < len(all); i += every {
		f := all[i]
		t := time.UnixMicro(f.Date).UTC()
		// A few flights left at 24:00, which the table writes as 00:00 of the
		// next day. The month is that of the day which ended.
		name := "flights-" + t.Add(-time.Minute).Format("2006-01") + ".csv"
		b := months[name]
		if b == nil {
			b = bytes.NewBufferString("date,delay,distance,origin,destination\n")
			months[name] = b
		}
		fmt.Fprintf(b, "%s,%d,%d,%s,%s\n", t.Format("2006-01-02 15:04"), f.Delay, f.Distance, f.Origin, f.Destination)
		taken++
	}
	if taken != rows {
		return fmt.Errorf("selected %d flights, not %d", taken, rows)
	}
	return write(months, dir)
}

// write compresses the months into dir and prints a line for each.
func write(months map[string]*bytes.Buffer, dir string) error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(8<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	names := make([]string, 0, len(months))
	for name := range months {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		text := months[name].Bytes()
		packed := enc.EncodeAll(text, nil)
		if err := os.WriteFile(filepath.Join(dir, name+".zst"), packed, 0o644); err != nil {
			return err
		}
		fmt.Printf("%s\t%d flights\t%d bytes\t%d compressed\n", name, bytes.Count(text, []byte("\n"))-1, len(text), len(packed))
	}
	return nil
}
