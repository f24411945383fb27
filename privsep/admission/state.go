package admission

import (
	"encoding/binary"
	"fmt"
	"time"
)

// A state is one byte of version and then, for each source, its bits, its
// network, when it is free in Unix milliseconds, and whether it is blocked with
// how many of a /48 are.
const (
	stateVersion = 1
	stateEntry   = 1 + 8 + 8 + 1
)

// MaxState is the most bytes that a state has. Who reads one reads no more.
const MaxState = 1 + 2*maxSources*stateEntry

// AppendBinary appends what sources have to pay, so that it survives an upgrade
// of the daemon. Which credentials failed and who logged in is not in it.
func (g *Gate) AppendBinary(to []byte) ([]byte, error) {
	now := time.Now().UnixMilli()
	g.mu.Lock()
	defer g.mu.Unlock()
	to = append(to, stateVersion)
	for _, family := range []map[source]record{g.ledger.v4, g.ledger.v6} {
		for s, r := range family {
			if r.until <= now {
				continue
			}
			flags := r.inside << 1
			if r.blocked {
				flags |= 1
			}
			to = append(to, s.bits)
			to = binary.BigEndian.AppendUint64(to, s.high)
			to = binary.BigEndian.AppendUint64(to, uint64(r.until))
			to = append(to, flags)
		}
	}
	return to, nil
}

// UnmarshalBinary takes over what sources had to pay. What is not a state
// changes nothing. Penalties that have passed, or that are longer than this
// Gate's Max, are cut.
func (g *Gate) UnmarshalBinary(state []byte) error {
	if len(state) == 0 || state[0] != stateVersion {
		return fmt.Errorf("admission: state does not begin with version %d", stateVersion)
	}
	rest := state[1:]
	if len(rest)%stateEntry != 0 || len(state) > MaxState {
		return fmt.Errorf("admission: state of %d bytes: want 1, and %d for each of at most %d sources", len(state), stateEntry, 2*maxSources)
	}
	now := time.Now().UnixMilli()
	g.mu.Lock()
	defer g.mu.Unlock()
	latest := now + g.ledger.penalties.Max.Milliseconds()
	took := newLedger(g.ledger.penalties)
	for ; len(rest) > 0; rest = rest[stateEntry:] {
		s := source{binary.BigEndian.Uint64(rest[1:]), rest[0]}
		until, flags := int64(binary.BigEndian.Uint64(rest[9:])), rest[17]
		if !s.valid() || until < 0 || flags>>1 > escalation {
			return fmt.Errorf("admission: state: entry at byte %d is of no source", len(state)-len(rest))
		}
		if until > now {
			took.put(s, record{until: min(until, latest), blocked: flags&1 != 0, inside: flags >> 1}, now)
		}
	}
	g.ledger.v4, g.ledger.v6 = took.v4, took.v6
	return nil
}
