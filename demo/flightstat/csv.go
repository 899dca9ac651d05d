package flightstat

import (
	"bytes"
	"fmt"
	"io"
)

// maxLine bounds a line of a table, in bytes: hostile input costs no memory.
const maxLine = 4096

// ReadCSV counts the flights of a CSV table whose columns are
//
//	date,delay,distance,origin,destination
//
// with delay in whole minutes and origin the three letters of an airport.
// Other columns are not looked at. A line that begins with "date," is a
// heading and empty lines are skipped. It returns how many flights it counted
// and an error that names the line it could not read.
//
// The reader is by hand because it is the demo's inner loop: encoding/csv
// takes several times as long on this table.
func (s *Summary) ReadCSV(r io.Reader) (flights int64, err error) {
	buf := make([]byte, 1<<20)
	kept, line := 0, 0
	for {
		n, err := r.Read(buf[kept:])
		if err != nil && err != io.EOF {
			return flights, err
		}
		done := err == io.EOF
		text := buf[:kept+n]
		for {
			end := bytes.IndexByte(text, '\n')
			if end < 0 {
				if !done || len(text) == 0 {
					break
				}
				end = len(text)
			}
			line++
			counted, err := s.readLine(text[:end])
			if err != nil {
				return flights, fmt.Errorf("line %d: %w", line, err)
			}
			if counted {
				flights++
			}
			text = text[min(end+1, len(text)):]
		}
		if done {
			return flights, nil
		}
		if len(text) > maxLine {
			return flights, fmt.Errorf("line %d: longer than %d bytes", line+1, maxLine)
		}
		kept = copy(buf, text)
	}
}

var heading = []byte("date,")

// readLine counts the flight of one line, without its newline.
func (s *Summary) readLine(b []byte) (bool, error) {
	if len(b) > 0 && b[len(b)-1] == '\r' {
		b = b[:len(b)-1]
	}
	if len(b) == 0 || bytes.HasPrefix(b, heading) {
		return false, nil
	}
	_, rest, ok1 := bytes.Cut(b, comma)
	delay, rest, ok2 := bytes.Cut(rest, comma)
	_, rest, ok3 := bytes.Cut(rest, comma)
	origin, _, ok4 := bytes.Cut(rest, comma)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return false, fmt.Errorf("%.80q does not have five columns", b)
	}
	d, ok := parseDelay(delay)
	if !ok {
		return false, fmt.Errorf("%.80q is not a delay between %d and %d minutes", delay, MinDelay, MaxDelay)
	}
	a, ok := parseCode(origin)
	if !ok {
		return false, fmt.Errorf("%.80q is not an airport's three letters", origin)
	}
	s.count(a, d, 1)
	return true, nil
}

var comma = []byte(",")

func parseDelay(b []byte) (int, bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 6 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	if negative {
		n = -n
	}
	return n, n >= MinDelay && n <= MaxDelay
}
