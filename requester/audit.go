package requester

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"

	"github.com/perigee-network/perigee"
)

// Audits. A provider signs its receipt before it can know whether the execution
// will be repeated elsewhere; only then does the requester draw. How often
// depends on what this requester knows of the provider: after BOINC's adaptive
// replication (https://github.com/BOINC/boinc/wiki/AdaptiveReplication), with a
// floor, so that a good name never makes cheating free.
const (
	auditAlways   = 10                  // matched results before which every result is audited
	auditFloor    = 0.02                // smallest probability of an audit
	auditYoung    = 0.05                // smallest one in a provider's first days
	auditYoungFor = 30 * 24 * time.Hour // those first days
)

// standing is what this requester knows of a provider's honesty.
type standing struct {
	Since   int64 `cbor:"since"`   // Unix milliseconds of the first result
	Matched int64 `cbor:"matched"` // audited results that agreed since the last that did not
}

func standingKey(id perigee.PeerID) []byte { return []byte(standingPrefix + string(id)) }

func (r *Requester) standing(id perigee.PeerID) standing {
	s := standing{Since: time.Now().UnixMilli()}
	b, err := r.cfg.DB.Get(standingKey(id))
	if err == nil {
		err = perigee.Decode(b, &s)
	}
	if err != nil && !errors.Is(err, perigee.NotFound) {
		r.cfg.Log.Warn("a provider's standing cannot be read; it counts as new", "provider", id, "err", err)
		return standing{Since: time.Now().UnixMilli()}
	}
	return s
}

// auditChance is the probability that a result of a provider is audited.
func auditChance(s standing, now time.Time) float64 {
	if s.Matched < auditAlways {
		return 1
	}
	floor := auditFloor
	if now.Sub(time.UnixMilli(s.Since)) < auditYoungFor {
		floor = auditYoung
	}
	return max(floor, 1/float64(s.Matched))
}

// drawn decides by chance, which no provider can foresee.
func drawn(p float64) bool {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return float64(binary.BigEndian.Uint64(b[:])>>11)/(1<<53) < p
}

// audit decides whether the first result of a part is to be repeated by another
// provider before it is accepted. mu is held.
func (u *run) audit(e *exec) {
	p := e.part
	if u.job.Verify.Mode != "audit" || p.copies > 1 || p.unaudited {
		return
	}
	if drawn(auditChance(u.r.standing(e.Provider), time.Now())) {
		p.copies, p.quorum = 2, 2
	}
}

// waiveAudit accepts a part's single result unaudited: nobody else can repeat it.
func (u *run) waiveAudit(p *part) {
	if u.job.Verify.Mode != "audit" || p.copies != 2 {
		return
	}
	for _, e := range p.execs {
		if e.State == perigee.ExecCompleted {
			p.copies, p.quorum, p.unaudited = 1, 1, true
			u.touched[p] = struct{}{}
			return
		}
	}
}

// remember writes what comparing a part's results says of the providers: those
// that agree with the accepted one, and those that do not.
func (u *run) remember(p *part, agree []*exec) {
	if p.quorum < 2 {
		return
	}
	same := map[*exec]bool{}
	for _, e := range agree {
		same[e] = true
	}
	for _, e := range p.execs {
		if e.State != perigee.ExecCompleted {
			continue
		}
		s := u.r.standing(e.Provider)
		if s.Matched++; !same[e] {
			s.Matched = 0
		}
		u.write(standingKey(e.Provider), &s)
	}
	if u.job.Verify.Mode == "audit" {
		u.rec.Audited++
	}
}
