package p2p

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/identity"
)

const loop4 = "/ip4/127.0.0.1/tcp/0"

func testKey(t testing.TB) *identity.Key {
	t.Helper()
	k, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testNet starts a node that listens on loopback unless change says otherwise.
func testNet(t testing.TB, change ...func(*Config)) *Network {
	t.Helper()
	cfg := Config{Key: testKey(t), Listen: []string{loop4}}
	for _, fn := range change {
		fn(&cfg)
	}
	n, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func connect(t testing.TB, from, to *Network) {
	t.Helper()
	if err := from.Connect(t.Context(), to.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

type echo struct {
	Text string `cbor:"text"`
}

const echoProto = "/perigee/test-echo/1"

func handleEcho(n *Network) {
	n.Handle(echoProto, func(_ context.Context, s *Stream) {
		for {
			var m echo
			if s.Receive(&m) != nil {
				return
			}
			m.Text = string(s.Peer()) + ": " + m.Text
			if s.Send(&m) != nil {
				return
			}
		}
	})
}

func TestCall(t *testing.T) {
	for _, transport := range []string{loop4, "/ip4/127.0.0.1/udp/0/quic-v1"} {
		t.Run(transport, func(t *testing.T) {
			a := testNet(t, func(c *Config) { c.Listen = []string{transport} })
			b := testNet(t, func(c *Config) { c.Listen = []string{transport} })
			handleEcho(a)
			handleEcho(b)
			connect(t, a, b)
			long := strings.Repeat("x", 3<<20)
			for _, c := range []struct {
				from, to *Network
				text     string
			}{{a, b, "hi"}, {b, a, "hi"}, {a, b, long}, {a, a, "self"}, {a, a, long}} {
				var got echo
				if err := c.from.Call(t.Context(), c.to.ID(), echoProto, echo{c.text}, &got); err != nil {
					t.Fatal(err)
				}
				if want := string(c.from.ID()) + ": " + c.text; got.Text != want {
					t.Errorf("got %.80q", got.Text)
				}
			}
			p := a.Peers()
			if len(p) != 1 || p[0].ID != b.ID() || p[0].Version != perigee.Version || p[0].Direction != "outbound" || p[0].Relayed {
				t.Errorf("peers: %+v", p)
			}
			eventually(t, "a latency", func() bool { return a.Peers()[0].LatencyMS > 0 })
		})
	}
}

func TestCallErrors(t *testing.T) {
	a, b := testNet(t), testNet(t)
	connect(t, a, b)
	b.Handle("/perigee/test-panic/1", func(context.Context, *Stream) { panic("boom") })
	b.Handle("/perigee/test-mute/1", func(ctx context.Context, s *Stream) { <-ctx.Done() })
	b.Handle("/perigee/test-close/1", func(context.Context, *Stream) {})
	a.Handle("/perigee/test-panic/1", func(context.Context, *Stream) { panic("boom") })
	stranger := testKey(t).Peer()
	for _, c := range []struct {
		name  string
		to    perigee.PeerID
		proto string
		kind  perigee.Kind
		text  string
	}{
		{"panic", b.ID(), "/perigee/test-panic/1", perigee.Internal, "failed while answering"},
		{"own panic", a.ID(), "/perigee/test-panic/1", perigee.Internal, "failed while answering"},
		{"silence", b.ID(), "/perigee/test-mute/1", perigee.Timeout, "did not answer"},
		{"no answer", b.ID(), "/perigee/test-close/1", perigee.Unavailable, "without an answer"},
		{"unknown protocol", b.ID(), "/perigee/test-none/1", perigee.Unsupported, "does not speak"},
		{"own unknown protocol", a.ID(), "/perigee/test-none/1", perigee.Unsupported, "does not speak"},
		{"stranger", stranger, "/perigee/test-none/1", perigee.Unavailable, string(stranger)},
		{"not a peer", "hello", "/perigee/test-none/1", perigee.Invalid, "peer ID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			var got echo
			err := a.Call(ctx, c.to, c.proto, echo{"hi"}, &got)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("kind %s: %v", perigee.KindOf(err), err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := a.Call(ctx, b.ID(), "/perigee/test-mute/1", echo{}, &echo{}); !errors.Is(err, perigee.Cancelled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestConnectErrors(t *testing.T) {
	a, b := testNet(t), testNet(t)
	at, _, _ := strings.Cut(b.Addrs()[0], "/p2p/")
	for _, c := range []struct {
		addr string
		kind perigee.Kind
		text string
	}{
		{"hello", perigee.Invalid, "multiaddr"},
		{at, perigee.Invalid, "names no peer"},
		{"/p2p/" + string(b.ID()), perigee.Invalid, "not where"},
		{a.Addrs()[0], perigee.Invalid, "itself"},
		{at + "/p2p/" + string(testKey(t).Peer()), perigee.Invalid, "the node at that address is " + string(b.ID())},
		{"/ip4/127.0.0.1/tcp/1/p2p/" + string(testKey(t).Peer()), perigee.Unavailable, "connection refused"},
		{strings.Repeat("/ip4/127.0.0.1", 100), perigee.Invalid, "characters"},
	} {
		if err := a.Connect(t.Context(), c.addr); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%.40s: kind %s: %v", c.addr, perigee.KindOf(err), err)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for name, c := range map[string]Config{
		"needs a key":     {},
		"must have 32":    {Key: testKey(t), PSK: []byte("short")},
		"private network": {Key: testKey(t), PSK: make([]byte, 32), PublicDHT: true},
		"DHT mode":        {Key: testKey(t), DHT: "yes"},
		"reachability":    {Key: testKey(t), Reachability: "maybe"},
		"cannot listen":   {Key: testKey(t), Listen: []string{"127.0.0.1:80"}},
		"bad peer":        {Key: testKey(t), Peers: []string{loop4}},
		"bad relay":       {Key: testKey(t), Relays: []string{loop4}},
	} {
		if n, err := New(t.Context(), c); !errors.Is(err, perigee.Invalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
			if n != nil {
				n.Close()
			}
		}
	}
}

func TestListenInUse(t *testing.T) {
	a := testNet(t)
	taken, _, _ := strings.Cut(a.Addrs()[0], "/p2p/")
	for _, listen := range [][]string{{taken}, {"/ip4/127.0.0.1/udp/0/quic-v1", taken}, {loop4, "/ip4/127.0.0.1/tcp/0/ws"}, {"/ip4/192.0.2.1/tcp/0"}} {
		n, err := New(t.Context(), Config{Key: testKey(t), Listen: listen})
		if !errors.Is(err, perigee.Unavailable) || !strings.Contains(err.Error(), "cannot listen on") {
			t.Errorf("%v: %v", listen, err)
		}
		if n != nil {
			n.Close()
		}
	}
	testNet(t, func(c *Config) {
		c.Listen = []string{"/ip4/0.0.0.0/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	})
}

func TestAuthors(t *testing.T) {
	var as authors
	now := time.Now()
	p, q := peer.ID("p"), peer.ID("q")
	n := 0
	for range 2 * authorBurst {
		if as.admit(p, now) {
			n++
		}
	}
	if n != authorBurst || !as.admit(q, now) || as.admit(p, now) || !as.admit(p, now.Add(time.Second)) {
		t.Errorf("%d at once", n)
	}
	for i := range maxAuthors {
		as.admit(peer.ID(fmt.Sprint(i)), now)
	}
	if len(as.all) > maxAuthors {
		t.Errorf("%d authors are remembered", len(as.all))
	}
}

func TestBusyAndClose(t *testing.T) {
	a := testNet(t)
	b := testNet(t, func(c *Config) { c.MaxStreams = 3 })
	var ended atomic.Int32
	b.Handle(echoProto, func(ctx context.Context, s *Stream) {
		_ = s.Send(echo{"in"})
		<-ctx.Done()
		ended.Add(1)
	})
	connect(t, a, b)
	for range 3 {
		s, err := a.Open(t.Context(), b.ID(), echoProto)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Send(echo{}), s.Receive(&echo{})); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Call(t.Context(), b.ID(), echoProto, echo{}, &echo{}); !errors.Is(err, perigee.Busy) {
		t.Errorf("the fourth stream: %v", err)
	}
	if err := b.Close(); err != nil || ended.Load() != 3 {
		t.Errorf("closed with %d handlers ended: %v", ended.Load(), err)
	}
	if err := b.Call(t.Context(), a.ID(), echoProto, echo{}, &echo{}); err == nil {
		t.Error("a closed network calls")
	}
}

// TestHostileFrames sends what no honest node does.
func TestHostileFrames(t *testing.T) {
	a, b := testNet(t), testNet(t)
	got := make(chan error, 1)
	b.Handle(echoProto, func(_ context.Context, s *Stream) {
		_ = s.SetDeadline(time.Now().Add(500 * time.Millisecond))
		var m echo
		got <- s.Receive(&m)
	})
	connect(t, a, b)
	for _, c := range []struct {
		name  string
		bytes string
		end   bool
		kind  perigee.Kind
	}{
		{"too long", "\xff\xff\xff\xff\x0f", false, perigee.Corrupt},
		{"endless length", "\xff\xff\xff\xff\xff\xff\xff", false, perigee.Corrupt},
		{"needless length byte", "\x81\x00", false, perigee.Corrupt},
		{"empty", "\x00", false, perigee.Corrupt},
		{"cut length", "\xff", true, perigee.Corrupt},
		{"cut body", "\x05\xa1", true, perigee.Corrupt},
		{"cut long body", "\x80\x80\x40\xa1", true, perigee.Corrupt},
		{"garbage", "\x03abc", false, perigee.Corrupt},
		{"unknown key", "\x05\xa1\x63abc", false, perigee.Corrupt},
		{"stall", "\x05\xa1", false, perigee.Timeout},
		{"nothing", "", true, perigee.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := a.Open(t.Context(), b.ID(), echoProto)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Reset()
			if _, err := s.Write([]byte(c.bytes)); err != nil {
				t.Fatal(err)
			}
			if c.end {
				_ = s.CloseWrite()
			}
			if err := <-got; !errors.Is(err, c.kind) {
				t.Errorf("kind %s: %v", perigee.KindOf(err), err)
			}
		})
	}
	s, err := a.Open(t.Context(), b.ID(), echoProto)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	if err := s.Send(echo{strings.Repeat("x", perigee.MaxMessage)}); !errors.Is(err, perigee.Invalid) {
		t.Errorf("sending too much: %v", err)
	}
}

func TestGossip(t *testing.T) {
	type message struct {
		from perigee.PeerID
		text string
	}
	off := func(c *Config) { c.DHT = "off" } // through which they would meet
	nets := []*Network{testNet(t, off), testNet(t, off), testNet(t, off)}
	connect(t, nets[0], nets[1])
	connect(t, nets[1], nets[2]) // 0 and 2 hear each other through 1
	got := make([]chan message, 3)
	topics := make([]*Topic, 3)
	joined := make(chan perigee.PeerID, 10)
	for i, n := range nets {
		got[i] = make(chan message, 10)
		var err error
		topics[i], err = n.Join("perigee/test/1", func(_ perigee.PeerID, data []byte) error {
			switch string(data) {
			case "bad":
				return perigee.E("test", perigee.Invalid, "bad")
			case "panic":
				panic("validator")
			}
			return nil
		}, func(from perigee.PeerID, data []byte) {
			if string(data) == "boom" {
				panic("boom")
			}
			got[i] <- message{from, string(data)}
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Join("perigee/test/1", nil, nil); !errors.Is(err, perigee.Invalid) {
			t.Errorf("joined twice: %v", err)
		}
	}
	if err := topics[1].OnPeer(func(p perigee.PeerID) { joined <- p }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case <-joined:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody joined")
		}
	}
	eventually(t, "subscriptions", func() bool { return len(topics[0].Peers()) == 1 && len(topics[2].Peers()) == 1 })
	if err := topics[0].Publish(t.Context(), []byte("bad")); !errors.Is(err, perigee.Invalid) {
		t.Errorf("published a bad message: %v", err)
	}
	if err := topics[0].Publish(t.Context(), make([]byte, MaxGossip+1)); !errors.Is(err, perigee.Invalid) {
		t.Errorf("published a long message: %v", err)
	}
	time.Sleep(2 * time.Second) // gossipsub builds its mesh once a second
	_ = topics[0].Publish(t.Context(), []byte("panic"))
	_ = topics[0].Publish(t.Context(), []byte("boom"))
	if err := topics[0].Publish(t.Context(), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{1, 2} {
		select {
		case m := <-got[i]:
			if m != (message{nets[0].ID(), "hello"}) {
				t.Errorf("node %d got %v", i, m)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("node %d got nothing", i)
		}
	}
	select {
	case m := <-got[0]:
		t.Errorf("the author got %v", m)
	case <-time.After(100 * time.Millisecond):
	}
}

func TestOnPeer(t *testing.T) {
	a, b := testNet(t), testNet(t)
	early, late := make(chan perigee.PeerID, 9), make(chan perigee.PeerID, 9)
	a.OnPeer(func(p perigee.PeerID) { early <- p })
	connect(t, b, a)
	if p := <-early; p != b.ID() {
		t.Errorf("got %s", p)
	}
	a.OnPeer(func(p perigee.PeerID) { late <- p })
	if p := <-late; p != b.ID() {
		t.Errorf("got %s", p)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the peer's end", func() bool { return a.nodeCount() == 0 })
}

func TestDHT(t *testing.T) {
	boot := testNet(t)
	var nets []*Network
	for range 4 {
		nets = append(nets, testNet(t, func(c *Config) { c.Peers = boot.Addrs() }))
	}
	for _, n := range append(nets, boot) {
		eventually(t, "a routing table", func() bool { return n.dht.RoutingTable().Size() > 0 })
	}
	c := perigee.SumCID(perigee.CodecRaw, []byte("content"))
	if err := nets[0].Provide(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	got, err := nets[3].FindHolders(t.Context(), c, 0)
	if err != nil || len(got) != 1 || got[0] != nets[0].ID() {
		t.Fatalf("found %v, %v", got, err)
	}
	handleEcho(nets[0])
	if err := nets[3].Call(t.Context(), nets[0].ID(), echoProto, echo{"hi"}, &echo{}); err != nil {
		t.Errorf("calling a holder that was found: %v", err)
	}
	if got, err := nets[1].FindHolders(t.Context(), perigee.SumCID(perigee.CodecRaw, nil), 3); err != nil || len(got) != 0 {
		t.Errorf("found %v, %v", got, err)
	}
	// All began with one address; through the rendezvous they meet.
	eventually(t, "all nodes to meet", func() bool {
		for _, n := range nets {
			if n.nodeCount() < 3 {
				return false
			}
		}
		return true
	})

	off := testNet(t, func(c *Config) { c.DHT = "off" })
	if err := off.Provide(t.Context(), c); !errors.Is(err, perigee.Unavailable) {
		t.Errorf("providing without DHT: %v", err)
	}
	if got, err := off.FindHolders(t.Context(), c, 1); err != nil || len(got) != 0 {
		t.Errorf("finding without DHT: %v, %v", got, err)
	}
}

func TestPrivateNetwork(t *testing.T) {
	psk, file, err := GeneratePSK()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParsePSK(file)
	if err != nil || string(parsed) != string(psk) {
		t.Fatal(err)
	}
	private := func(key []byte) func(*Config) {
		return func(c *Config) {
			c.PSK = key
			c.Listen = []string{loop4, "/ip4/127.0.0.1/udp/0/quic-v1"}
		}
	}
	other, _, _ := GeneratePSK()
	a, b, c, d := testNet(t, private(psk)), testNet(t, private(psk)), testNet(t, private(other)), testNet(t)
	if len(a.Addrs()) != 1 {
		t.Errorf("a private node listens on %q", a.Addrs())
	}
	connect(t, a, b)
	handleEcho(b)
	if err := a.Call(t.Context(), b.ID(), echoProto, echo{"hi"}, &echo{}); err != nil {
		t.Error(err)
	}
	for name, pair := range map[string][2]*Network{"another key": {a, c}, "no key on the other": {a, d}, "no key here": {d, a}} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := pair[0].Connect(ctx, pair[1].Addrs()[0])
		cancel()
		if !errors.Is(err, perigee.Unavailable) || !strings.Contains(err.Error(), "pre-shared key") {
			t.Errorf("%s: kind %s: %v", name, perigee.KindOf(err), err)
		}
	}
}

func TestStaticPeerComesBack(t *testing.T) {
	key := testKey(t)
	b := testNet(t, func(c *Config) { c.Key = key })
	addr := b.Addrs()[0]
	listen, _, _ := strings.Cut(addr, "/p2p/")
	a := testNet(t, func(c *Config) { c.Peers = []string{addr} })
	eventually(t, "a connection", func() bool { return a.nodeCount() == 1 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end", func() bool { return a.nodeCount() == 0 })
	testNet(t, func(c *Config) { c.Key, c.Listen = key, []string{listen} })
	eventually(t, "a new connection", func() bool { return a.nodeCount() == 1 })
}

// TestRelay reaches a node that listens nowhere.
func TestRelay(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes int64
	}{{"unlimited", -1}, {"limited", 64 << 20}} {
		t.Run(c.name, func(t *testing.T) {
			relay := testNet(t, func(cfg *Config) {
				cfg.RelayService, cfg.RelayBytes, cfg.RelaySeconds = true, c.bytes, -1
			})
			hidden := testNet(t, func(cfg *Config) { cfg.Listen, cfg.Relays = nil, relay.Addrs() })
			handleEcho(hidden)
			circuit := fmt.Sprintf("%s/p2p-circuit/p2p/%s", relay.Addrs()[0], hidden.ID())
			eventually(t, "an address through the relay", func() bool {
				return len(hidden.Addrs()) == 1 && hidden.Addrs()[0] == circuit
			})
			b := testNet(t)
			if err := b.Connect(t.Context(), circuit); err != nil {
				t.Fatal(err)
			}
			var got echo
			if err := b.Call(t.Context(), hidden.ID(), echoProto, echo{strings.Repeat("x", 1<<20)}, &got); err != nil {
				t.Fatal(err)
			}
			// The other way, over the same connection.
			handleEcho(b)
			if err := hidden.Call(t.Context(), b.ID(), echoProto, echo{"hi"}, &got); err != nil {
				t.Fatal(err)
			}
			for _, p := range b.Peers() {
				if p.ID == hidden.ID() && !p.Relayed {
					t.Errorf("not relayed: %+v", p)
				}
			}
		})
	}
}

func TestMDNS(t *testing.T) {
	psk, _, _ := GeneratePSK() // a service name of its own: no stranger answers
	with := func(c *Config) { c.MDNS, c.PSK, c.Listen = true, psk, []string{"/ip4/0.0.0.0/tcp/0"} }
	a, b := testNet(t, with), testNet(t, with)
	for range 100 {
		if a.nodeCount() == 1 && b.nodeCount() == 1 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Skip("nothing came over multicast in 10 s; this machine seems not to carry it")
}

func TestAddAddrs(t *testing.T) {
	a, b := testNet(t), testNet(t)
	handleEcho(b)
	listen, _, _ := strings.Cut(b.Addrs()[0], "/p2p/")
	other := testKey(t).Peer()
	a.AddAddrs(b.ID(), []string{"nonsense", "", "/p2p/" + string(b.ID()), "/ip4/127.0.0.1/tcp/2/p2p/" + string(other)})
	if err := a.Call(t.Context(), b.ID(), echoProto, echo{}, &echo{}); !errors.Is(err, perigee.Unavailable) {
		t.Errorf("without an address: %v", err)
	}
	a.AddAddrs(b.ID(), []string{listen})
	if err := a.Call(t.Context(), b.ID(), echoProto, echo{}, &echo{}); err != nil {
		t.Error(err)
	}
	a.AddAddrs("nobody", []string{listen})
}
