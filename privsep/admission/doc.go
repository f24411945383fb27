// Package admission decides which connections become sessions, and makes those
// who attacked before wait: one [Gate] for a daemon.
//
// It does not protect against an attacker with more addresses than the limits
// allow for, and it knows an address only: people behind one address share what
// one of them brought upon it, until it decays. It never looks at a packet; what
// costs the kernel something before a connection is accepted is not its concern.
//
// # What a source is
//
// An IPv4 address is one source. So is an IPv6 /64, which is what one subscriber
// has at least; when several of them in one /48 are blocked at once, the /48 is,
// but for those in it that have logged in within a day. IPv4 addresses that are
// mapped into IPv6 count as what they are.
//
// # Penalties
//
// A penalty is a time, and what is left of it decays as time passes. Each
// offence adds to what is left; from [Penalties.Threshold] on the source is
// refused until all of it has passed. A violation costs most, because nothing
// but an attacker causes one; then a crash, the login deadline, a failed login.
// The same wrong name and password again costs nothing: that is a forgotten
// password in a mail client, not a guess. A worker that its filter killed
// ([privsep.Filtered]) is the daemon's mistake until somebody has looked, so it
// punishes nobody; [Slot.Close] tells the caller to raise an alarm. OpenSSH, the
// model, books a violation at 1 to 5 s and a filter mistake at 90
// (PerSourcePenalties in sshd_config(5)), and forgets all of it on SIGHUP.
//
// Memory is bounded: 32,768 sources of each family, 16 MiB at the most. When
// there are more, the one that is free soonest is forgotten.
package admission
