package perigee

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestPeerAndAccountIDs(t *testing.T) {
	for i := range byte(20) {
		pub := testKey(i).Public().(ed25519.PublicKey)
		got, err := PeerIDOf(pub).PublicKey()
		require.NoError(t, err)
		require.Equal(t, pub, got)
		got, err = AccountIDOf(pub).PublicKey()
		require.NoError(t, err)
		require.Equal(t, pub, got)
		require.True(t, strings.HasPrefix(string(PeerIDOf(pub)), "12D3Koo"))
		require.True(t, strings.HasPrefix(string(AccountIDOf(pub)), "z6Mk"))
		require.Len(t, PeerIDOf(pub).Short(), 8)
	}
	require.Equal(t, "abc", PeerID("abc").Short())
	for _, bad := range []string{"", "x", "0OIl", strings.Repeat("1", 100), "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "z6Mk", "z6Mk0", "z6Mkzzzzzz"} {
		_, err := PeerID(bad).PublicKey()
		require.ErrorIs(t, err, Invalid, bad)
		_, err = AccountID(bad).PublicKey()
		require.ErrorIs(t, err, Invalid, bad)
	}
}

func TestParseCID(t *testing.T) {
	c := SumCID(CodecRaw, []byte("hello"))
	for _, s := range []string{c.String(), "/ipfs/" + c.String()} {
		got, err := ParseCID(s)
		require.NoError(t, err)
		require.Equal(t, c, got)
		require.True(t, got == c, "equal CIDs are ==")
	}
	v0, err := ParseCID("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG")
	require.NoError(t, err)
	require.EqualValues(t, CodecDagPB, v0.Codec())
	for _, bad := range []string{"", "/ipfs/", "x", "bafk", "bafkqaaa/path", strings.Repeat("b", 600), "f0155" + "00fb01" + strings.Repeat("00", 251)} {
		_, err := ParseCID(bad)
		require.ErrorIs(t, err, Invalid, bad)
	}
}

func TestCIDForms(t *testing.T) {
	type box struct {
		C CID `json:"c" cbor:"c"`
	}
	for _, c := range []CID{{}, SumCID(CodecRaw, []byte("x")), SumCID(CodecDagCBOR, nil)} {
		j, err := json.Marshal(box{c})
		require.NoError(t, err)
		var back box
		require.NoError(t, json.Unmarshal(j, &back))
		require.Equal(t, c, back.C)

		b, err := Encode(box{c})
		require.NoError(t, err)
		back = box{SumCID(CodecRaw, []byte("overwritten"))}
		require.NoError(t, Decode(b, &back))
		require.Equal(t, c, back.C)

		text, err := c.MarshalText()
		require.NoError(t, err)
		var again CID
		require.NoError(t, again.UnmarshalText(text))
		require.Equal(t, c, again)
	}
	require.Zero(t, CID{}.Codec())
	require.Empty(t, CID{}.String())
	for name, b := range map[string][]byte{
		"another tag": {0xd8, 41, 0x42, 0, 1}, "no tag": {0x42, 0, 1}, "text": {0xd8, 42, 0x61, 'x'}, "no zero byte": {0xd8, 42, 0x42, 1, 1},
		"empty": {0xd8, 42, 0x40}, "garbage": {0xd8, 42, 0x43, 0, 9, 9}, "list": {0xd8, 42, 0x82, 0, 1},
	} {
		require.ErrorIs(t, Decode(append([]byte{0xa1, 0x61, 'c'}, b...), &box{}), Corrupt, name)
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("the disk is gone")
	err := fmt.Errorf("outside: %w", E("data.Get", Corrupt, cause, "block %d", 7))
	require.EqualError(t, err, "outside: block 7: the disk is gone")
	require.ErrorIs(t, err, Corrupt)
	require.ErrorIs(t, err, cause)
	require.NotErrorIs(t, err, NotFound)
	require.Equal(t, Corrupt, KindOf(err))
	for want, err := range map[Kind]error{"": nil, Timeout: context.DeadlineExceeded, Cancelled: context.Canceled, Internal: cause} {
		require.Equal(t, want, KindOf(err))
	}
	require.EqualError(t, E("op", Busy), "busy")
	require.EqualError(t, E("op", Busy, cause), "the disk is gone")
	require.EqualError(t, E("op", Busy, nil, "100%% full"), "100% full")
	require.EqualError(t, E("op", Busy, 42), "42")

	require.Nil(t, FaultOf(nil))
	require.NoError(t, (*Fault)(nil).Err("op"))
	f := FaultOf(err)
	require.Equal(t, &Fault{Kind: Corrupt, Message: err.Error()}, f)
	require.ErrorIs(t, f.Err("op"), Corrupt)
	require.ErrorIs(t, (&Fault{Kind: "made up", Message: "x"}).Err("op"), Internal)

	for _, text := range []string{strings.Repeat("é", 4000) + "!", "a" + strings.Repeat("é", 4000), "bad \xff text"} {
		f := FaultOf(errors.New(text))
		require.True(t, utf8.ValidString(f.Message))
		b, err := Encode(f)
		require.NoError(t, err)
		require.NoError(t, Decode(b, new(Fault)), "a fault survives the wire")
		require.Less(t, len(f.Message), 4200)
	}
}

func TestStates(t *testing.T) {
	for s, final := range map[JobState]bool{JobQueued: false, JobRunning: false, JobCompleted: true, JobFailed: true, JobCancelled: true} {
		require.Equal(t, final, s.Final(), s)
	}
	for s, final := range map[ExecutionState]bool{"": false, ExecLeased: false, ExecRunning: false, ExecCompleted: true, ExecFailed: true, ExecCancelled: true, ExecLost: true} {
		require.Equal(t, final, s.Final(), s)
	}
}

func FuzzParseCID(f *testing.F) {
	for _, s := range []string{SumCID(CodecRaw, nil).String(), "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "/ipfs/bafkqaaa", "z", "f01550000", "F0155", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCID(s)
		if err != nil {
			require.ErrorIs(t, err, Invalid)
			return
		}
		again, err := ParseCID(c.String())
		require.NoError(t, err, c.String())
		require.Equal(t, c, again)
		b, err := Encode(c)
		require.NoError(t, err)
		var linked CID
		require.NoError(t, Decode(b, &linked))
		require.Equal(t, c, linked)
	})
}

func FuzzPeerID(f *testing.F) {
	f.Add(string(testPeer(1)))
	f.Add("1111")
	f.Fuzz(func(t *testing.T, s string) {
		pub, err := PeerID(s).PublicKey()
		if err != nil {
			require.ErrorIs(t, err, Invalid)
			return
		}
		require.Equal(t, PeerID(s), PeerIDOf(pub), "a key has one peer ID")
	})
}

func FuzzAccountID(f *testing.F) {
	f.Add(string(testAccount(1)))
	f.Add("z6Mk")
	f.Fuzz(func(t *testing.T, s string) {
		pub, err := AccountID(s).PublicKey()
		if err != nil {
			require.ErrorIs(t, err, Invalid)
			return
		}
		require.Equal(t, AccountID(s), AccountIDOf(pub), "a key has one account ID")
	})
}

// FuzzCIDLink reads the binary form of a link.
func FuzzCIDLink(f *testing.F) {
	b, err := Encode(SumCID(CodecRaw, nil))
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte{0xf6})
	f.Fuzz(func(t *testing.T, b []byte) {
		var c CID
		if Decode(b, &c) != nil {
			return
		}
		again, err := Encode(c)
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, again))
	})
}
