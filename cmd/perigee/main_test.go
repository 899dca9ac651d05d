package main

import (
	"crypto/ed25519"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worker" { // started by this binary as a node, under any name
		main()
	}
	testscript.Main(m, map[string]func(){"perigee": main})
}

const (
	tinyModule = "\x00asm\x01\x00\x00\x00" // the smallest module: it has nothing to run
	// noopModule is (module (memory (export "memory") 1) (func (export "_start"))).
	noopModule = tinyModule + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" + "\x05\x03\x01\x00\x01" +
		"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" + "\x0a\x04\x01\x02\x00\x0b"
)

// TestScripts runs the transcripts of testdata/script: what the command line
// says and how it exits, where no node is needed or one that lives as long as
// the command does.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("PERIGEE_HOME", filepath.Join(env.WorkDir, "home"))
			for name, module := range map[string]string{"tiny.wasm": tinyModule, "noop.wasm": noopModule} {
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), []byte(module), 0o600); err != nil {
					return err
				}
			}
			return writeReceipts(env.WorkDir)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
	})
}

// exits runs a command and checks its exit code: exits CODE perigee ARGS…
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("cannot run %s: %v", args[1], err)
		}
		code = exit.ExitCode()
	}
	if got := strconv.Itoa(code); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// writeReceipts leaves receipts to verify: good.cbor, and forged.cbor whose
// fuel was changed after it was signed.
func writeReceipts(dir string) error {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	peer := perigee.PeerIDOf(key.Public().(ed25519.PublicKey))
	cid := perigee.SumCID(perigee.CodecRaw, []byte("x"))
	r := &perigee.Receipt{Version: 1, Provider: peer, Requester: peer, Class: "c", Part: perigee.Part{Module: cid, Engine: "e"},
		Result: perigee.Result{Output: cid, Fuel: 5}}
	var err error
	if r.JobKey, err = r.Part.Key(); err != nil {
		return err
	}
	if err := perigee.Sign(r, func(b []byte) []byte { return ed25519.Sign(key, b) }); err != nil {
		return err
	}
	good, err := perigee.Encode(r)
	if err != nil {
		return err
	}
	r.Result.Fuel = 1
	forged, err := perigee.Encode(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "good.cbor"), good, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "forged.cbor"), forged, 0o600)
}

func TestExitCodes(t *testing.T) {
	for err, want := range map[error]int{
		perigee.E("x", perigee.Invalid, "x"):     2,
		perigee.E("x", perigee.NotFound, "x"):    3,
		perigee.E("x", perigee.Refused, "x"):     4,
		perigee.E("x", perigee.Unavailable, "x"): 5,
		perigee.E("x", perigee.Internal, "x"):    1,
		perigee.E("x", perigee.Timeout, "x"):     1,
		perigee.E("x", perigee.Corrupt, "x"):     1,
		perigee.E("x", perigee.Cancelled, "x"):   1,
		usagef("x"):                              2,
		os.ErrPermission:                         1,
		&guestError{1}:                           11,
		&guestError{99}:                          109,
		&guestError{255}:                         109,
	} {
		require.Equal(t, want, exitCode(err), "%v", err)
	}
	require.Equal(t, 0, exitCode(nil))
}

func TestSplitMount(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "a:")
	require.NoError(t, os.MkdirAll(filepath.Join(odd, "b"), 0o755))
	for in, want := range map[string][2]string{
		"bafy":                          {"bafy", ""},
		"bafy:/data":                    {"bafy", "/data"},
		"bafy/sub:/data":                {"bafy/sub", "/data"},
		"z6Mk/name:/d":                  {"z6Mk/name", "/d"},
		dir:                             {dir, ""},
		dir + ":/m":                     {dir, "/m"},
		filepath.Join(odd, "b"):         {filepath.Join(odd, "b"), ""},
		filepath.Join(odd, "b") + ":/m": {filepath.Join(odd, "b"), "/m"},
	} {
		src, mount := splitMount(in)
		require.Equal(t, want, [2]string{src, mount}, in)
	}
}

func TestParseProvide(t *testing.T) {
	p, err := parseProvide("cpu=2,memory=4GiB, disk=20GiB")
	require.NoError(t, err)
	require.Equal(t, provided{CPU: 2, Memory: 4 << 30, Disk: 20 << 30}, p)
	for _, bad := range []string{"cpu", "cpu=0", "cpu=x", "memory=lots", "gpu=1", "cpu=1,,"} {
		_, err := parseProvide(bad)
		require.Error(t, err, bad)
		require.Equal(t, 2, exitCode(err), bad)
	}
}
