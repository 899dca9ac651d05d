package demo

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/perigee-network/perigee"
)

// tables are one million flights, a compressed CSV file for each month; see
// data/README.md for where they come from.
//
//go:embed data/*.csv.zst
var tables embed.FS

// programs are the job's WebAssembly modules. `make build` compiles them before
// it compiles this package; a fresh clone holds only the directory's README.
//
//go:embed assets
var programs embed.FS

// Tables returns the names of the demo's CSV tables in order of their months.
func Tables() []string {
	entries, err := fs.ReadDir(tables, "data")
	if err != nil {
		panic(err) // the directory is embedded
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".zst")
	}
	return names
}

// Table returns the text of one of Tables.
func Table(name string) ([]byte, error) {
	packed, err := tables.ReadFile(path.Join("data", name+".zst"))
	if err != nil {
		return nil, perigee.E("demo.Table", perigee.NotFound, err, "no table %q", name)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, perigee.E("demo.Table", perigee.Internal, err)
	}
	defer dec.Close()
	text, err := dec.DecodeAll(packed, nil)
	if err != nil {
		return nil, perigee.E("demo.Table", perigee.Corrupt, err, "table %q", name)
	}
	return text, nil
}

// Program returns one of the demo's compiled programs: "flights" or
// "flightsmerge". The error is Unsupported when this binary was built without.
func Program(name string) ([]byte, error) {
	b, err := programs.ReadFile("assets/" + name + ".wasm")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, perigee.E("demo.Program", perigee.Unsupported,
			"this binary was built without the demo's programs: run make build and use bin/perigee")
	}
	return b, err
}

// spread writes each table below dirs, dealt round in order, and returns the
// bytes written in all.
func spread(dirs []string) (total int64, err error) {
	for i, name := range Tables() {
		text, err := Table(name)
		if err != nil {
			return total, err
		}
		file := filepath.Join(dirs[i%len(dirs)], name)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return total, fmt.Errorf("cannot spread the data: %w", err)
		}
		total += int64(len(text))
	}
	return total, nil
}
