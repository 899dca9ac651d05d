package perigee

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/stretchr/testify/require"
)

// testKey is the i-th key of the tests.
func testKey(i byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{i}, ed25519.SeedSize))
}

func testPeer(i byte) PeerID { return PeerIDOf(testKey(i).Public().(ed25519.PublicKey)) }

func testAccount(i byte) AccountID { return AccountIDOf(testKey(i).Public().(ed25519.PublicKey)) }

func signer(i byte) func([]byte) []byte {
	return func(msg []byte) []byte { return ed25519.Sign(testKey(i), msg) }
}

func samplePart() *Part {
	return &Part{
		Engine: "wasmtime-44.0.0/perigee-1", Module: SumCID(CodecRaw, []byte("module")),
		Args: []string{"-level", "ERROR", "/in"}, Env: map[string]string{"LANG": "C", "A": "", "longer-name": "ü"}, Workdir: "/in",
		Inputs: []PartInput{
			{Mount: "/in/a.csv", CID: SumCID(CodecRaw, []byte("a")), Size: 1 << 40, Offset: 1 << 20, Length: 1 << 20, Align: AlignLine},
			{Mount: "/ref", CID: SumCID(CodecDagPB, []byte("ref")), Size: 77},
		},
		Outputs: []string{"/out"},
		Limits:  Limits{Memory: 512 << 20, Fuel: 50e9, Disk: 1 << 30, Files: 10_000},
	}
}

func sampleReceipt(t testing.TB) *Receipt {
	t.Helper()
	p := samplePart()
	key, err := p.Key()
	require.NoError(t, err)
	r := &Receipt{
		Version: 1, JobKey: key, Part: *p,
		Result:    Result{Output: SumCID(CodecDagPB, []byte("output")), Size: 123, ExitCode: 3, Fuel: 123_456_789},
		Requester: testPeer(1), Provider: testPeer(2), Class: "wasmtime-44.0.0/perigee-1/amd64", Lease: "lease", Execution: "execution",
		Price: 1_000, BytesRead: 1 << 20, BytesFetched: 4096, CPUMicros: 12_345, PeakMemory: 1 << 24, Started: 1_700_000_000_000_000, Finished: 1_700_000_001_000_000,
	}
	require.NoError(t, Sign(r, signer(2)))
	return r
}

// sampleRecords are one filled record of each type that travels or is stored.
func sampleRecords(t testing.TB) map[string]any {
	t.Helper()
	cid := SumCID(CodecRaw, []byte("a"))
	offer := &Offer{Provider: testPeer(2), Account: testAccount(2), Sequence: 1_700_000_000_000, Expires: 1_700_000_600_000, Addrs: []string{"/ip4/192.0.2.1/tcp/4001"}, Region: "EU/DE",
		Engines: []string{"wasmtime-44.0.0/perigee-1"}, Class: "wasmtime-44.0.0/perigee-1/amd64", CPU: 4, Memory: 16 << 30, Disk: 100 << 30, Labels: map[string]string{"rack": "7"}, Price: 10, Version: "0.1.0"}
	request := &BidRequest{Requester: testPeer(1), Job: "job", Engine: "wasmtime-44.0.0/perigee-1", Modules: []CID{SumCID(CodecRaw, []byte("module"))}, Limits: samplePart().Limits, CPU: 1,
		Parts: []PartAsk{{Index: 0, Inputs: samplePart().Inputs}, {Index: 1}}}
	bid := &Bid{Provider: testPeer(2), Account: testAccount(2), Requester: testPeer(1), Job: "job", Region: "EU/DE", Class: "wasmtime-44.0.0/perigee-1/amd64", Price: 10, Slots: 4, Wait: 250,
		Expires: 1_700_000_060_000, Local: []PartLocal{{0, 1 << 20}, {7, 5}}}
	refusal := &Bid{Provider: testPeer(2), Requester: testPeer(1), Job: "job", Refusal: &Fault{Kind: Busy, Message: "full until ½ past"}}
	lease := &Lease{ID: "lease", Requester: testPeer(1), Provider: testPeer(2), Job: "job", Created: 1_700_000_000_000, Price: 10, CPU: 1, Timeout: 600_000, Retention: 86_400_000, StreamLogs: true,
		Holders: []HolderHint{{CID: cid, Peers: []PeerID{testPeer(2), testPeer(3)}}}, Executions: []LeasedExecution{{ID: "execution", Part: *samplePart()}}}
	dataset := &Dataset{Owner: testAccount(1), Name: "flights", Sequence: 7, Created: 1_700_000_000_000, Node: testPeer(1), Join: "any",
		Parts: []DatasetPart{{Path: "2001-01.csv", CID: cid, Size: 77, Holders: []PeerID{testPeer(2)}, By: testAccount(2)}}}
	join := &DatasetJoin{Owner: testAccount(1), Name: "flights", Account: testAccount(2), Node: testPeer(2), Created: 1_700_000_000_000, Parts: dataset.Parts}
	head := &DatasetHead{Owner: testAccount(1), Name: "flights", Sequence: 7, Created: 1_700_000_000_000, Node: testPeer(1), Join: "any", Count: 1, Size: 77, Holders: 1, Chunks: []CID{SumCID(CodecDagCBOR, nil)}}
	for i, r := range map[byte][]Signed{1: {lease, dataset, head}, 2: {offer, bid, refusal, join}} {
		for _, s := range r {
			require.NoError(t, Sign(s, signer(i)))
		}
	}
	return map[string]any{
		"part": samplePart(), "offer": offer, "bid request": request, "bid": bid, "refused bid": refusal, "lease": lease,
		"lease answer": &LeaseAnswer{Signature: lease.Signature}, "refused lease": &LeaseAnswer{Refusal: &Fault{Kind: Refused, Message: "no"}},
		"receipt": sampleReceipt(t), "dataset": dataset, "dataset head": head, "dataset join": join,
		"watch request": &WatchRequest{Executions: []string{"a", "b"}},
		"event":         &Event{Kind: EventState, Execution: "a", State: ExecFailed, Fault: &Fault{Kind: Exhausted, Message: "fuel"}, Stream: 2, Offset: 1 << 33, Data: []byte{0, 255}},
		"beat":          &Event{Kind: EventBeat}, "cancel request": &CancelRequest{Job: "job", Executions: []string{"a"}, Release: true}, "cancel answer": &CancelAnswer{Count: 3},
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	for name, rec := range sampleRecords(t) {
		t.Run(name, func(t *testing.T) {
			b, err := Encode(rec)
			require.NoError(t, err)
			back := reflect.New(reflect.TypeOf(rec).Elem()).Interface()
			require.NoError(t, Decode(b, back))
			again, err := Encode(back)
			require.NoError(t, err)
			require.Equal(t, b, again)

			if s, ok := back.(Signed); ok {
				require.NoError(t, CheckSignature(s))
				require.Empty(t, *s.Unsigned().(Signed).Sig())
			}
			for _, bad := range [][]byte{nil, b[:len(b)-1], append(bytes.Clone(b), 0), append([]byte{0xd9, 0xd9, 0xf7}, b...)} {
				require.ErrorIs(t, Decode(bad, reflect.New(reflect.TypeOf(rec).Elem()).Interface()), Corrupt)
			}
		})
	}
}

// TestEncodingIsDagCBOR checks the encoding against another implementation, so
// that any IPLD program can read Perigee's records.
func TestEncodingIsDagCBOR(t *testing.T) {
	for name, rec := range sampleRecords(t) {
		b, err := Encode(rec)
		require.NoError(t, err)
		node := basicnode.Prototype.Any.NewBuilder()
		require.NoError(t, dagcbor.Decode(node, bytes.NewReader(b)), name)
		var again bytes.Buffer
		require.NoError(t, dagcbor.Encode(node.Build(), &again), name)
		require.Equal(t, b, again.Bytes(), name)
	}
}

// TestZeroRecords checks that a record with nothing in it, which nobody should
// send but anybody may, survives its own encoding: nil and empty lists, maps
// and bytes are written alike, an absent fault as null.
func TestZeroRecords(t *testing.T) {
	for name, rec := range sampleRecords(t) {
		zero := reflect.New(reflect.TypeOf(rec).Elem()).Interface()
		b, err := Encode(zero)
		require.NoError(t, err, name)
		require.NoError(t, Decode(b, reflect.New(reflect.TypeOf(rec).Elem()).Interface()), name)
	}
	empty, err := Encode(&WatchRequest{Executions: []string{}})
	require.NoError(t, err)
	absent, err := Encode(&WatchRequest{})
	require.NoError(t, err)
	require.Equal(t, empty, absent)

	answer, err := Encode(&LeaseAnswer{})
	require.NoError(t, err)
	require.Equal(t, "a267726566757361"+"6c"+"f6"+"697369676e6174757265"+"40", fmt.Sprintf("%x", answer), "an absent fault is null, absent bytes are empty")
	var back LeaseAnswer
	require.NoError(t, Decode(answer, &back))
	require.Nil(t, back.Refusal)
}

func TestDecodeRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"unknown key":       {0xa1, 0x61, 'x', 0x01},
		"repeated key":      {0xa2, 0x65, 'c', 'o', 'u', 'n', 't', 1, 0x65, 'c', 'o', 'u', 'n', 't', 2},
		"missing key":       {0xa1, 0x65, 'c', 'o', 'u', 'n', 't', 1},
		"unsorted keys":     {0xa2, 0x65, 'f', 'a', 'u', 'l', 't', 0xf6, 0x65, 'c', 'o', 'u', 'n', 't', 1},
		"long integer":      {0xa2, 0x65, 'c', 'o', 'u', 'n', 't', 0x18, 1, 0x65, 'f', 'a', 'u', 'l', 't', 0xf6},
		"indefinite map":    {0xbf, 0x65, 'c', 'o', 'u', 'n', 't', 1, 0x65, 'f', 'a', 'u', 'l', 't', 0xf6, 0xff},
		"float for integer": {0xa2, 0x65, 'c', 'o', 'u', 'n', 't', 0xf9, 0x3c, 0, 0x65, 'f', 'a', 'u', 'l', 't', 0xf6},
		"undefined":         {0xa2, 0x65, 'c', 'o', 'u', 'n', 't', 1, 0x65, 'f', 'a', 'u', 'l', 't', 0xf7},
		"no map":            {0x80},
		"too large":         make([]byte, MaxMessage+1),
	} {
		require.ErrorIs(t, Decode(b, &CancelAnswer{}), Corrupt, name)
	}
	require.NoError(t, Decode([]byte{0xa2, 0x65, 'c', 'o', 'u', 'n', 't', 1, 0x65, 'f', 'a', 'u', 'l', 't', 0xf6}, &CancelAnswer{}))

	deep := append(bytes.Repeat([]byte{0x81}, 1000), 0x80)
	require.ErrorIs(t, Decode(deep, new(any)), Corrupt)
	huge := []byte{0x9b, 0, 0, 0, 1, 0, 0, 0, 0} // a list of 2³² that is not there
	require.ErrorIs(t, Decode(huge, &[]string{}), Corrupt)
	badText := []byte{0x61, 0xff}
	require.ErrorIs(t, Decode(badText, new(string)), Corrupt)
}

func TestReceiptCheck(t *testing.T) {
	require.NoError(t, sampleReceipt(t).Check())
	for want, change := range map[string]func(*Receipt){
		"receipt version 2; this program knows version 1":      func(r *Receipt) { r.Version = 2 },
		"is not the key of its part":                           func(r *Receipt) { r.Part.Args = nil },
		"the receipt names no output":                          func(r *Receipt) { r.Result.Output = CID{} },
		"the receipt/1's signature does not match its content": func(r *Receipt) { r.Result.Fuel++ },
		"is not base58":                func(r *Receipt) { r.Provider = "0" },
		"does not hold an Ed25519 key": func(r *Receipt) { r.Provider = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG" },
	} {
		r := sampleReceipt(t)
		change(r)
		err := r.Check()
		require.ErrorIs(t, err, Corrupt)
		require.ErrorContains(t, err, want)
	}
	stolen := sampleReceipt(t)
	stolen.Provider = testPeer(3)
	require.ErrorIs(t, stolen.Check(), Corrupt)
	require.NoError(t, Sign(stolen, signer(3)), "whoever holds the key may sign the same result")
	require.NoError(t, stolen.Check())
}

// TestAnyFlippedBitBreaksAReceipt is the promise that a receipt can be checked
// by anyone: no bit of it can change unseen.
func TestAnyFlippedBitBreaksAReceipt(t *testing.T) {
	b, err := Encode(sampleReceipt(t))
	require.NoError(t, err)
	for bit := range 8 * len(b) {
		flipped := bytes.Clone(b)
		flipped[bit/8] ^= 1 << (bit % 8)
		var r Receipt
		if Decode(flipped, &r) == nil && r.Check() == nil {
			t.Fatalf("bit %d of %d can be flipped", bit, 8*len(b))
		}
	}
}

// TestDomainsDiffer checks that a signature over one type is worth nothing for
// another, even with the same bytes.
func TestDomainsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range []Signed{&Offer{}, &Bid{}, &Lease{}, &Receipt{}, &Dataset{}, &DatasetJoin{}} {
		require.False(t, seen[s.Domain()], s.Domain())
		seen[s.Domain()] = true
		msg, err := SignedBytes(s)
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(msg, []byte("perigee:"+s.Domain()+"\x00")))
	}
}

func TestJobKeyDependsOnEverything(t *testing.T) {
	base, err := samplePart().Key()
	require.NoError(t, err)
	keys := map[CID]bool{base: true}
	for i, change := range []func(*Part){
		func(p *Part) { p.Engine += "x" }, func(p *Part) { p.Module = SumCID(CodecRaw, nil) }, func(p *Part) { p.Args = p.Args[1:] }, func(p *Part) { p.Env["A"] = "1" },
		func(p *Part) { p.Workdir = "/" }, func(p *Part) { p.Inputs[0].Offset++ }, func(p *Part) { p.Inputs[0].Length++ }, func(p *Part) { p.Inputs[0].Align = "" },
		func(p *Part) { p.Inputs[1].CID = SumCID(CodecRaw, nil) }, func(p *Part) { p.Inputs[1].Mount = "/z" }, func(p *Part) { p.Inputs = p.Inputs[:1] },
		func(p *Part) { p.Outputs = nil }, func(p *Part) { p.Limits.Memory++ }, func(p *Part) { p.Limits.Fuel++ }, func(p *Part) { p.Limits.Disk++ }, func(p *Part) { p.Limits.Files++ },
	} {
		p := samplePart()
		change(p)
		key, err := p.Key()
		require.NoError(t, err)
		require.False(t, keys[key], "change %d leaves the job key as it was", i)
		keys[key] = true
	}
}

func TestRandomPartsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	text := func() string {
		runes := []rune("aä€😀/\n\x00")
		out := ""
		for range r.IntN(6) {
			out += string(runes[r.IntN(len(runes))])
		}
		return out
	}
	for range 500 {
		p := Part{Engine: text(), Workdir: text(), Env: map[string]string{}, Limits: Limits{r.Int64(), -r.Int64(), r.Int64N(25), 0}}
		for range r.IntN(5) {
			p.Args = append(p.Args, text())
			p.Env[text()] = text()
			p.Inputs = append(p.Inputs, PartInput{Mount: text(), CID: SumCID(uint64(CodecRaw), []byte(text())), Size: r.Int64()})
		}
		b, err := Encode(&p)
		require.NoError(t, err)
		var back Part
		require.NoError(t, Decode(b, &back))
		k1, err := p.Key()
		require.NoError(t, err)
		k2, err := back.Key()
		require.NoError(t, err)
		require.Equal(t, k1, k2)
	}
}

func TestPartInputBytes(t *testing.T) {
	for _, c := range []struct {
		in   PartInput
		want int64
	}{
		{PartInput{Size: 10}, 10}, {PartInput{Size: 10, Length: 4}, 4}, {PartInput{Size: 10, Offset: 8, Length: 4}, 2},
		{PartInput{Size: 10, Offset: 20, Length: 4}, 0}, {PartInput{}, 0},
	} {
		require.Equal(t, c.want, c.in.Bytes())
	}
}

// fuzzDecode checks that a decoder of T accepts nothing but the one encoding of
// what it read, and that what it read can be worked with.
func fuzzDecode[T any](f *testing.F) {
	for _, rec := range sampleRecords(f) {
		if _, ok := rec.(*T); ok {
			b, err := Encode(rec)
			require.NoError(f, err)
			f.Add(b)
		}
	}
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		v := new(T)
		if err := Decode(b, v); err != nil {
			require.ErrorIs(t, err, Corrupt)
			return
		}
		again, err := Encode(v)
		require.NoError(t, err)
		require.Equal(t, b, again)
		switch v := any(v).(type) {
		case *Receipt:
			_ = v.Check()
			_ = v.Part.Validate()
		case *DatasetHead:
			_ = v.Check()
		case *Lease:
			for _, e := range v.Executions {
				_ = e.Part.Validate()
			}
		}
		if s, ok := any(v).(Signed); ok {
			_ = CheckSignature(s)
		}
	})
}

func FuzzPart(f *testing.F)          { fuzzDecode[Part](f) }
func FuzzOffer(f *testing.F)         { fuzzDecode[Offer](f) }
func FuzzBidRequest(f *testing.F)    { fuzzDecode[BidRequest](f) }
func FuzzBid(f *testing.F)           { fuzzDecode[Bid](f) }
func FuzzLease(f *testing.F)         { fuzzDecode[Lease](f) }
func FuzzLeaseAnswer(f *testing.F)   { fuzzDecode[LeaseAnswer](f) }
func FuzzReceipt(f *testing.F)       { fuzzDecode[Receipt](f) }
func FuzzEvent(f *testing.F)         { fuzzDecode[Event](f) }
func FuzzWatchRequest(f *testing.F)  { fuzzDecode[WatchRequest](f) }
func FuzzCancelRequest(f *testing.F) { fuzzDecode[CancelRequest](f) }
func FuzzCancelAnswer(f *testing.F)  { fuzzDecode[CancelAnswer](f) }
func FuzzDataset(f *testing.F)       { fuzzDecode[Dataset](f) }
func FuzzDatasetJoin(f *testing.F)   { fuzzDecode[DatasetJoin](f) }
