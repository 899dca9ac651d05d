package flightstat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// magic begins a summary's binary form and names its version.
const magic = "flights/1\n"

// MarshalBinary returns a compact form of the summary: for every airport that
// has departures, in order of code, its code, how many delays occur, and for
// each delay in rising order the distance from the delay before and the count.
// All numbers are unsigned varints. The same counts give the same bytes.
func (s *Summary) MarshalBinary() ([]byte, error) {
	b := []byte(magic)
	for a, counts := range s.counts {
		bins := 0
		for _, n := range counts {
			if n > 0 {
				bins++
			}
		}
		if bins == 0 {
			continue
		}
		b = append(b, code(a).String()...)
		b = binary.AppendUvarint(b, uint64(bins))
		before := 0
		for i, n := range counts {
			if n == 0 {
				continue
			}
			b = binary.AppendUvarint(b, uint64(i-before))
			b = binary.AppendUvarint(b, uint64(n))
			before = i
		}
	}
	return b, nil
}

var errTruncated = errors.New("the summary ends too early")

// AddBinary adds the summary whose binary form b is. Bytes may come from
// anywhere: any input gives an error or a sum, and costs memory within bounds.
// After an error s holds part of the sum and is of no more use.
func (s *Summary) AddBinary(b []byte) error {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return fmt.Errorf("not a summary of flights: it does not begin with %q", magic)
	}
	b = b[len(magic):]
	before := -1
	for len(b) > 0 {
		if len(b) < 3 {
			return errTruncated
		}
		a, ok := parseCode(b[:3])
		if !ok {
			return fmt.Errorf("%q is not an airport's three letters", b[:3])
		}
		if int(a) <= before {
			return fmt.Errorf("airport %s is out of order", a)
		}
		before = int(a)
		var err error
		if b, err = s.addAirport(a, b[3:]); err != nil {
			return fmt.Errorf("airport %s: %w", a, err)
		}
	}
	return nil
}

// addAirport adds one airport's counts and returns the bytes after them.
func (s *Summary) addAirport(a code, b []byte) ([]byte, error) {
	bins, b, err := uvarint(b)
	if err != nil {
		return nil, err
	}
	if bins == 0 || bins > MaxDelay-MinDelay+1 {
		return nil, fmt.Errorf("%d delays", bins)
	}
	at := uint64(0)
	for k := range bins {
		var step, n uint64
		if step, b, err = uvarint(b); err != nil {
			return nil, err
		}
		if n, b, err = uvarint(b); err != nil {
			return nil, err
		}
		if step > MaxDelay-MinDelay || at+step > MaxDelay-MinDelay {
			return nil, fmt.Errorf("a delay above %d minutes", MaxDelay)
		}
		if step == 0 && k > 0 {
			return nil, errors.New("the same delay twice")
		}
		at += step
		if n == 0 || n > math.MaxUint32 || uint64(s.at(a, int(at)))+n > math.MaxUint32 {
			return nil, fmt.Errorf("a count of %d", n)
		}
		s.count(a, int(at)+MinDelay, uint32(n))
	}
	return b, nil
}

// at is the count of airport a at index i of its counts.
func (s *Summary) at(a code, i int) uint32 {
	if c := s.counts[a]; i < len(c) {
		return c[i]
	}
	return 0
}

func uvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, errTruncated
	}
	return v, b[n:], nil
}
