package perigee

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strings"
	"time"
)

// sizeUnits are the units of a Size, smallest first. A bare K, M or G is not
// among them: half the world reads it as a power of ten and half of two.
var sizeUnits = []struct {
	name   string
	factor int64
}{
	{"B", 1},
	{"KB", 1e3}, {"KiB", 1 << 10},
	{"MB", 1e6}, {"MiB", 1 << 20},
	{"GB", 1e9}, {"GiB", 1 << 30},
	{"TB", 1e12}, {"TiB", 1 << 40},
	{"PB", 1e15}, {"PiB", 1 << 50},
}

// number is a non-negative decimal number with optional underscores between
// digits, fraction and a short exponent. The exponent's two digits keep the
// exact arithmetic below small.
var number = regexp.MustCompile(`^([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE]\+?[0-9]{1,2})?)\s*([A-Za-z]*)$`)

// parseNumber splits s into an exact number and the unit after it.
func parseNumber(s string) (value *big.Rat, unit string, ok bool) {
	if len(s) > 64 {
		return nil, "", false
	}
	m := number.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return nil, "", false
	}
	value, ok = new(big.Rat).SetString(strings.ReplaceAll(m[1], "_", ""))
	return value, m[2], ok
}

// ParseSize reads a number of bytes: "512MiB", "1.5GB", "1024". Units are not
// case-sensitive; a fraction of a byte is cut off. Errors are of kind Invalid.
func ParseSize(s string) (Size, error) {
	value, unit, ok := parseNumber(s)
	if !ok {
		return 0, E("perigee.ParseSize", Invalid, "%s is not a size; write a number and a unit, such as 512MiB", quote(s))
	}
	factor := int64(1)
	if unit != "" {
		factor = 0
		for _, u := range sizeUnits {
			if strings.EqualFold(u.name, unit) {
				factor = u.factor
			}
		}
		if n := strings.ToUpper(unit); factor == 0 && len(n) == 1 && strings.Contains("KMGTP", n) {
			digits := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), unit))
			return 0, E("perigee.ParseSize", Invalid, "%s is ambiguous; write %s%siB (powers of 1024) or %s%sB (powers of 1000)", quote(s), digits, n, digits, n)
		}
		if factor == 0 {
			return 0, E("perigee.ParseSize", Invalid, "%s has the unknown unit %s; the units are B, KiB, MiB, GiB, TiB and KB, MB, GB, TB", quote(s), quote(unit))
		}
	}
	if factor == 1 && !value.IsInt() {
		return 0, E("perigee.ParseSize", Invalid, "%s is not a whole number of bytes", quote(s))
	}
	value.Mul(value, new(big.Rat).SetInt64(factor))
	whole := new(big.Int).Quo(value.Num(), value.Denom())
	if !whole.IsInt64() {
		return 0, E("perigee.ParseSize", Invalid, "%s is larger than any size Perigee can hold (8EiB)", quote(s))
	}
	return Size(whole.Int64()), nil
}

// String prints the size exactly, in the largest binary unit that divides it:
// "512MiB", "1000B". ParseSize reads it back.
func (s Size) String() string {
	if s == 0 {
		return "0B"
	}
	name, factor := "B", int64(1)
	for _, u := range sizeUnits {
		if u.factor&(u.factor-1) == 0 && int64(s)%u.factor == 0 {
			name, factor = u.name, u.factor
		}
	}
	return fmt.Sprintf("%d%s", int64(s)/factor, name)
}

// ParseFuel reads a number of operations: "50e9", "1e12", "5_000". Errors are
// of kind Invalid.
func ParseFuel(s string) (Fuel, error) {
	value, unit, ok := parseNumber(s)
	if !ok || unit != "" || !value.IsInt() {
		return 0, E("perigee.ParseFuel", Invalid, "%s is not an amount of fuel; write a whole number of operations, such as 50e9", quote(s))
	}
	if !value.Num().IsInt64() {
		return 0, E("perigee.ParseFuel", Invalid, "%s is more fuel than Perigee can count (%d)", quote(s), int64(math.MaxInt64))
	}
	return Fuel(value.Num().Int64()), nil
}

// String prints the fuel exactly: thousands and more that end in zeros in the
// form "50e9". ParseFuel reads it back.
func (f Fuel) String() string {
	n, exp := int64(f), 0
	for n != 0 && n%1000 == 0 {
		n, exp = n/1000, exp+3
	}
	if exp == 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%de%d", n, exp)
}

// ParseDuration reads Go's form of a duration: "90s", "10m", "1h30m". A bare
// number other than 0 is refused, since it does not say of what. Errors are of
// kind Invalid.
func ParseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(strings.TrimSpace(s))
	if err == nil {
		return Duration(d), nil
	}
	if value, unit, ok := parseNumber(s); ok {
		switch unit {
		case "":
			return 0, E("perigee.ParseDuration", Invalid, "%s needs a unit; write %ss for seconds or %sm for minutes", quote(s), s, s)
		case "d":
			value.Mul(value, big.NewRat(24, 1))
			return 0, E("perigee.ParseDuration", Invalid, "%s: days have no unit here; write %sh", quote(s), value.FloatString(0))
		}
	}
	return 0, E("perigee.ParseDuration", Invalid, "%s is not a duration; write a number and a unit, such as 90s, 10m or 1h30m", quote(s))
}

// unmarshalUnit reads the JSON of a unit: a string or a bare number.
func unmarshalUnit[T any](b []byte, into *T, parse func(string) (T, error)) error {
	if string(b) == "null" {
		return nil
	}
	text := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	v, err := parse(text)
	if err != nil {
		return err
	}
	*into = v
	return nil
}

// UnmarshalJSON reads a string such as "512MiB" or a number of bytes.
func (s *Size) UnmarshalJSON(b []byte) error { return unmarshalUnit(b, s, ParseSize) }

// UnmarshalText reads the form that ParseSize reads; YAML uses it too.
func (s *Size) UnmarshalText(b []byte) (err error) { *s, err = ParseSize(string(b)); return err }

// MarshalText writes the form of String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON writes the form of String.
func (s Size) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON reads a string such as "50e9" or a number of operations.
func (f *Fuel) UnmarshalJSON(b []byte) error { return unmarshalUnit(b, f, ParseFuel) }

// UnmarshalText reads the form that ParseFuel reads; YAML uses it too.
func (f *Fuel) UnmarshalText(b []byte) (err error) { *f, err = ParseFuel(string(b)); return err }

// MarshalText writes the form of String.
func (f Fuel) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// MarshalJSON writes the form of String.
func (f Fuel) MarshalJSON() ([]byte, error) { return json.Marshal(f.String()) }

// UnmarshalJSON reads a string such as "10m".
func (d *Duration) UnmarshalJSON(b []byte) error { return unmarshalUnit(b, d, ParseDuration) }

// UnmarshalText reads the form that ParseDuration reads; YAML uses it too.
func (d *Duration) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDuration(string(b))
	return err
}

// MarshalText writes the form of String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// quote puts s in quotes for a message, cut to a length that a person can read.
func quote(s string) string {
	if r := []rune(s); len(r) > 64 {
		s = string(r[:64]) + "…"
	}
	return fmt.Sprintf("%q", s)
}
