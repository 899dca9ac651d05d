package perigee

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]Size{
		"0": 0, "1024": 1024, "512MiB": 512 << 20, "512 mib": 512 << 20, "1.5GB": 1_500_000_000, "1.5GiB": 3 << 29,
		"1_000": 1000, "1e3": 1000, "7EiB": -1, "8PiB": 8 << 50, "9000PiB": -1, "1.3GiB": 1395864371, "0.1KiB": 102, "2B": 2,
	} {
		got, err := ParseSize(in)
		if want < 0 {
			require.ErrorIs(t, err, Invalid, in)
			continue
		}
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for in, msg := range map[string]string{
		"":                       `"" is not a size; write a number and a unit, such as 512MiB`,
		"-1":                     `"-1" is not a size`,
		"512M":                   `"512M" is ambiguous; write 512MiB (powers of 1024) or 512MB (powers of 1000)`,
		"4 g":                    `"4 g" is ambiguous; write 4GiB`,
		"3 parsecs":              `"3 parsecs" has the unknown unit "parsecs"; the units are B, KiB`,
		"1.5":                    `"1.5" is not a whole number of bytes`,
		"9e99":                   `"9e99" is larger than any size`,
		"1e999999999":            `is not a size`,
		"NaN":                    `is not a size`,
		"0x10":                   `has the unknown unit`,
		strings.Repeat("9", 100): `is not a size`,
	} {
		_, err := ParseSize(in)
		require.ErrorIs(t, err, Invalid, in)
		if in != "0x10" {
			require.ErrorContains(t, err, msg, in)
		}
	}
}

func TestParseFuel(t *testing.T) {
	for in, want := range map[string]Fuel{"50e9": 50e9, "1e12": 1e12, "5_000": 5000, "0": 0, "1.5e9": 1_500_000_000, "9223372036854775807": math.MaxInt64} {
		got, err := ParseFuel(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"", "-1", "1.5", "50e9x", "9223372036854775808", "1e99", "1e-3", "fifty"} {
		_, err := ParseFuel(in)
		require.ErrorIs(t, err, Invalid, in)
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{"10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "0": 0, " 5s ": 5 * time.Second, "-1s": -time.Second} {
		got, err := ParseDuration(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got.D(), in)
	}
	for in, msg := range map[string]string{
		"10": `"10" needs a unit; write 10s for seconds or 10m for minutes`,
		"7d": `"7d": days have no unit here; write 168h`,
		"":   `"" is not a duration; write a number and a unit, such as 90s, 10m or 1h30m`,
	} {
		_, err := ParseDuration(in)
		require.ErrorIs(t, err, Invalid, in)
		require.EqualError(t, err, msg, in)
	}
}

func TestUnitsPrint(t *testing.T) {
	for want, got := range map[string]interface{ String() string }{
		"0B": Size(0), "1B": Size(1), "1000B": Size(1000), "1KiB": Size(1024), "1536MiB": Size(3 << 29), "4GiB": Size(4 << 30), "-1KiB": Size(-1024),
		"50e9": Fuel(50e9), "0": Fuel(0), "999": Fuel(999), "5e3": Fuel(5000), "1234e6": Fuel(1234e6), "10m0s": Duration(10 * time.Minute),
		"1.500000": Amount(1_500_000), "-0.000001": Amount(-1), "-9223372036854.775808": Amount(math.MinInt64),
	} {
		require.Equal(t, want, got.String())
	}
}

// units is how units stand inside other values.
type units struct {
	Size     Size
	Fuel     Fuel
	Duration Duration
}

func TestUnitsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		shift := r.IntN(63)
		u := units{Size(r.Int64() >> shift), Fuel(r.Int64() >> shift), Duration(r.Int64() >> shift)}
		if r.IntN(2) == 0 {
			u.Size, u.Fuel = u.Size/(1<<20)*(1<<20), u.Fuel/1e6*1e6
		}
		var back units
		b, err := json.Marshal(u)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, u, back)

		back = units{}
		b, err = yaml.Marshal(u)
		require.NoError(t, err)
		require.NoError(t, yaml.Unmarshal(b, &back))
		require.Equal(t, u, back)
	}
}

func TestUnitsFromJSON(t *testing.T) {
	var u units
	require.NoError(t, json.Unmarshal([]byte(`{"Size": 1024, "Fuel": 1e12, "Duration": "90s"}`), &u))
	require.Equal(t, units{1024, 1e12, Duration(90 * time.Second)}, u)
	require.NoError(t, json.Unmarshal([]byte(`{"Size": null}`), &u))
	require.Equal(t, Size(1024), u.Size, "null changes nothing, as everywhere in encoding/json")
	for _, bad := range []string{`{"Size": true}`, `{"Size": []}`, `{"Fuel": {}}`, `{"Duration": 10}`, `{"Size": "\ud800"}`} {
		require.Error(t, json.Unmarshal([]byte(bad), &u), bad)
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"512MiB", "1.5GB", "1024", "1e9", "9e99", "-1", "1__0", "٣MiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { roundTrip(t, s, ParseSize) })
}

func FuzzFuel(f *testing.F) {
	for _, s := range []string{"50e9", "1e12", "5_000", "1.5", "1e99"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { roundTrip(t, s, ParseFuel) })
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"10m", "1h30m", "-1s", "10", "7d", "1e9ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { roundTrip(t, s, ParseDuration) })
}

// roundTrip checks that what a text means is what its printed form means.
func roundTrip[T interface {
	comparable
	String() string
}](t *testing.T, s string, parse func(string) (T, error)) {
	v, err := parse(s)
	if err != nil {
		require.ErrorIs(t, err, Invalid)
		return
	}
	again, err := parse(v.String())
	require.NoError(t, err, v.String())
	require.Equal(t, v, again)
}
