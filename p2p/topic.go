package p2p

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/perigee-network/perigee"
)

// MaxGossip bounds one message of a topic, in bytes.
const MaxGossip = 1 << 20

// What one author may publish on one topic: authorBurst messages at once and
// authorRate in a second after that. More are neither delivered nor passed on.
const (
	authorBurst = 200
	authorRate  = 20
	maxAuthors  = 8192 // remembered per topic
)

// newGossip starts gossipsub. Every message carries its author's signature,
// which is checked before any validator sees it.
func (n *Network) newGossip() (*pubsub.PubSub, error) {
	return pubsub.NewGossipSub(n.ctx, n.host,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithMaxMessageSize(MaxGossip+(64<<10)),
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerOutboundQueueSize(128),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(
			pubsub.NewRegexpSubscriptionFilter(regexp.MustCompile(`^perigee/`)), 64)))
}

// Topic is a joined topic. It is safe for concurrent use.
type Topic struct {
	n     *Network
	name  string
	topic *pubsub.Topic
}

// Join subscribes to a topic, whose name begins with "perigee/". Every message
// of others is given to validate (nil: accept all) and, if that returns nil, to
// deliver (nil: none) and passed on. from is the author, whose signature was
// checked. An error of validate of kind Invalid or Corrupt marks the message as
// bad; any other error only keeps it from being delivered and passed on, as is
// right for one that is merely old. validate is called from many goroutines and
// must not block; deliver is called by one. The node's own messages are
// validated and not delivered. An author that publishes more than 20 messages a
// second for long is not heard beyond that. What was published before is not replayed.
func (n *Network) Join(topic string, validate func(from perigee.PeerID, data []byte) error, deliver func(from perigee.PeerID, data []byte)) (*Topic, error) {
	const op = "p2p.Join"
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed.Load() {
		return nil, perigee.E(op, perigee.Unavailable, "the network is closed")
	}
	if n.topics[topic] != nil {
		return nil, perigee.E(op, perigee.Invalid, "topic %s is joined already", topic)
	}
	authors := &authors{}
	err := n.gossip.RegisterTopicValidator(topic, func(_ context.Context, _ peer.ID, m *pubsub.Message) pubsub.ValidationResult {
		if from := m.GetFrom(); from != n.self && !authors.admit(from, time.Now()) {
			return pubsub.ValidationIgnore
		}
		return n.validate(topic, validate, m)
	})
	if err != nil {
		return nil, perigee.E(op, perigee.Internal, err, "cannot join %s", topic)
	}
	t, err := n.gossip.Join(topic)
	if err != nil {
		return nil, perigee.E(op, perigee.Invalid, err, "cannot join %s", topic)
	}
	sub, err := t.Subscribe(pubsub.WithBufferSize(256))
	if err != nil {
		return nil, perigee.E(op, perigee.Internal, err, "cannot join %s", topic)
	}
	joined := &Topic{n, topic, t}
	n.topics[topic] = joined
	n.tasks.Go(func() {
		defer sub.Cancel()
		for {
			m, err := sub.Next(n.ctx)
			if err != nil {
				return // closed
			}
			if from := m.GetFrom(); from != n.self && deliver != nil {
				n.guard(topic, func() { deliver(asPeerID(from), m.Data) })
			}
		}
	})
	return joined, nil
}

// authors counts what each author of a topic published lately.
type authors struct {
	mu  sync.Mutex
	all map[peer.ID]*author
}

type author struct {
	left  float64
	since time.Time
}

// admit takes one message from an author's allowance.
func (as *authors) admit(p peer.ID, now time.Time) bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	a := as.all[p]
	if a == nil {
		if as.all == nil || len(as.all) >= maxAuthors {
			as.all = map[peer.ID]*author{}
		}
		a = &author{authorBurst, now}
		as.all[p] = a
	}
	a.left = min(authorBurst, a.left+now.Sub(a.since).Seconds()*authorRate)
	a.since = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

// validate judges one message.
func (n *Network) validate(topic string, fn func(perigee.PeerID, []byte) error, m *pubsub.Message) pubsub.ValidationResult {
	if len(m.Data) > MaxGossip {
		return pubsub.ValidationReject
	}
	if fn == nil {
		return pubsub.ValidationAccept
	}
	err := errors.New("the validator failed")
	n.guard(topic, func() { err = fn(asPeerID(m.GetFrom()), m.Data) })
	switch perigee.KindOf(err) {
	case "":
		return pubsub.ValidationAccept
	case perigee.Invalid, perigee.Corrupt:
		return pubsub.ValidationReject
	}
	return pubsub.ValidationIgnore
}

// guard keeps a panic of fn from ending the process.
func (n *Network) guard(topic string, fn func()) {
	defer func() {
		if cause := recover(); cause != nil {
			n.log.Error("a topic's function failed", "topic", topic, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
		}
	}()
	fn()
}

// Publish sends data to all that joined the topic. It returns when the message
// is on its way, also when nobody else is there. Errors: Invalid when data is
// too long or the topic's own validator refuses it.
func (t *Topic) Publish(ctx context.Context, data []byte) error {
	const op = "p2p.Publish"
	if len(data) > MaxGossip {
		return perigee.E(op, perigee.Invalid, "a message of %d bytes; the limit is %d", len(data), MaxGossip)
	}
	if err := t.topic.Publish(ctx, data); err != nil {
		var refused pubsub.ValidationError
		switch {
		case errors.As(err, &refused):
			return perigee.E(op, perigee.Invalid, err, "the topic %s refuses the message", t.name)
		case t.n.closed.Load():
			return perigee.E(op, perigee.Unavailable, "the network is closed")
		}
		return perigee.E(op, perigee.Unavailable, err, "cannot publish on %s", t.name)
	}
	return nil
}

// Peers returns the peers known to have joined the topic.
func (t *Topic) Peers() []perigee.PeerID {
	var out []perigee.PeerID
	for _, p := range t.topic.ListPeers() {
		out = append(out, asPeerID(p))
	}
	return out
}

// OnPeer has fn called, in a goroutine of its own, for every peer that has
// joined the topic or joins it later: from then on messages reach it.
func (t *Topic) OnPeer(fn func(perigee.PeerID)) error {
	events, err := t.topic.EventHandler()
	if err != nil {
		return perigee.E("p2p.OnPeer", perigee.Internal, err, "cannot watch %s", t.name)
	}
	t.n.task(func(ctx context.Context) {
		defer events.Cancel()
		for {
			e, err := events.NextPeerEvent(ctx)
			if err != nil {
				return
			}
			if e.Type == pubsub.PeerJoin {
				t.n.task(func(context.Context) { fn(asPeerID(e.Peer)) })
			}
		}
	})
	return nil
}
