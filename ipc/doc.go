// Package ipc carries typed requests between two processes that do not trust
// each other, over one SOCK_SEQPACKET socketpair: one packet is one message.
//
// # What it does not protect
//
// It says whether a message is well formed, never whether it is permitted:
// that is package privsep's. It does not hide how many messages are sent, nor
// when. A peer that stops reading makes a sender wait (a context or deadline
// ends that), and it makes nobody else wait.
//
// # Limits
//
// A packet is at most [MaxPacket] bytes and 16 descriptors. Every claimed
// length is compared with what has arrived before anything is allocated, so a
// packet costs its receiver what its bytes cost and no more.
//
// # What is here
//
// A [Conn] sends and receives [Packet] values with their descriptors. A [Plan]
// is compiled once from a Go struct and is the only way between packets and Go
// values. A [Client] makes calls from many goroutines at once; [Serve] answers
// them. Policy, phases, processes and logging may not live here.
package ipc
