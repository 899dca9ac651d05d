package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"github.com/perigee-network/perigee"
)

// printJSON prints one JSON document, indented on a terminal.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	if a.outTTY {
		enc.SetIndent("", "  ")
	}
	return written(enc.Encode(v))
}

// show prints v as JSON when that was asked for, else what human prints.
func (a *app) show(v any, human func(w io.Writer)) error {
	if a.json {
		return a.printJSON(v)
	}
	var b strings.Builder
	human(&b)
	_, err := io.WriteString(a.out, b.String())
	return written(err)
}

// written makes an error of a failed write to the command's output.
func written(err error) error {
	if err == nil {
		return nil
	}
	return perigee.E("perigee", perigee.Internal, err, "cannot write the output")
}

// table prints rows in aligned columns. A column whose heading begins with '>'
// is aligned to the right.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(w io.Writer) {
	right := make([]bool, len(t.head))
	width := make([]int, len(t.head))
	head := make([]string, len(t.head))
	for i, h := range t.head {
		head[i], right[i] = strings.CutPrefix(h, ">")
	}
	all := append([][]string{head}, t.rows...)
	for _, r := range all {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, r := range all {
		var line strings.Builder
		for i, c := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if right[i] {
				line.WriteString(pad + c)
			} else {
				line.WriteString(c + pad)
			}
			if i < len(r)-1 {
				line.WriteString("  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// pairs prints names and values, one pair a line; pairs without value are left out.
func pairs(w io.Writer, kv ...string) {
	width := 0
	for i := 0; i+1 < len(kv); i += 2 {
		if kv[i+1] != "" {
			width = max(width, len(kv[i]))
		}
	}
	for i := 0; i+1 < len(kv); i += 2 {
		if kv[i+1] != "" {
			fmt.Fprintf(w, "%-*s  %s\n", width, kv[i], kv[i+1])
		}
	}
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
func countText(n int64) string { return humanize.Comma(n) }
func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return countText(n) + " " + many
}

// ago tells a time by its distance from now.
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return humanize.Time(t)
}

// took tells how long something lasted, or "-" when it has not ended.
func took(from, to *time.Time) string {
	if from == nil || to == nil {
		return "-"
	}
	return span(to.Sub(*from))
}

// span prints a duration in three or so digits.
func span(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// orDash prints "-" for nothing.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
