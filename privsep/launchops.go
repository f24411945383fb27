package privsep

import (
	"errors"
	"os"

	"github.com/go-privsep/sallyport/sandbox"
	"github.com/go-privsep/sallyport/seccomp"
)

// What a monitor asks of its launcher: operations like a worker's, on two
// channels, so that nothing waits for a start. The launcher serves them as
// policies of its own, in launcher.go.
var (
	prepareOp = Op[nothing, prepareReply]{Name: "prepare", Calls: 1, Timeout: enterTimeout}
	startOp   = Op[startRequest, startReply]{Name: "start", Calls: Unlimited, Timeout: enterTimeout, Size: 56 << 10}

	evidenceOp = Op[childRequest, evidenceReply]{Name: "evidence", Calls: Unlimited, Size: 60 << 10, Parallel: true}
	killOp     = Op[childRequest, nothing]{Name: "kill", Calls: Unlimited}
	reapOp     = Op[childRequest, reapReply]{Name: "reap", Calls: Unlimited}
)

type nothing struct{}

type prepareReply struct{ Missing uint16 }

type startRequest struct {
	Role    string `privsep:"max=64"`
	Sandbox profileMessage
	Channel *os.File `privsep:"kind=channel"`
	Output  *os.File `privsep:"kind=unix-stream"`
}

// Check is the launcher's own guard, also against its monitor: Validate lets no
// group 0 pass, and no profile has a way to say user 0.
func (r *startRequest) Check() error {
	if r.Role == "" {
		return errors.New("no role")
	}
	p := r.Sandbox.profile()
	return p.Validate()
}

type startReply struct {
	ID      uint32   // for the other operations: no process number, which comes again
	PID     uint32   // as the monitor sees it
	Process *os.File `privsep:"kind=process"`
}

type childRequest struct{ ID uint32 }

// What evidence also can be asked of.
const (
	monitorID  = 0
	launcherID = 1<<32 - 1
)

func (*childRequest) Check() error { return nil }

type reapReply struct{ Status uint32 }

// evidenceReply is a [sandbox.Evidence]. A process with more of something
// can't be sent, and so not be proved.
type evidenceReply struct {
	Status     []string `privsep:"max=32,each=1280"`
	Root       string   `privsep:"max=4096"`
	Namespaces []string `privsep:"max=8,each=64"`
	Files      []string `privsep:"max=32,each=256"`
	Hidden     bool
}

// enterMessage is what a worker is told before it is confined. Its launcher
// wrote it, so it needs no Check.
type enterMessage struct {
	Role    string `privsep:"max=64"`
	Sandbox profileMessage
	Parent  uint32
	Ground  uint8
}

func (m *enterMessage) origin() sandbox.Origin {
	return sandbox.Origin{Parent: m.Parent, Ground: sandbox.Ground(m.Ground)}
}

// profileMessage is a [Sandbox] on its way.
type profileMessage struct {
	UID, GID  uint32
	Groups    []uint32 `privsep:"max=64"`
	Root      string   `privsep:"max=1024"`
	Read      []string `privsep:"max=16,each=1024"`
	Write     []string `privsep:"max=16,each=1024"`
	Open      []string `privsep:"max=16,each=1024"`
	Promises  uint64
	OpenFiles uint32
	Memory    uint64
	FileSize  uint64
	Umask     uint32
	Without   uint16
}

func newProfileMessage(p *Sandbox) profileMessage {
	return profileMessage{
		UID: p.UID, GID: p.GID, Groups: p.Groups, Root: p.Root, Read: p.Read, Write: p.Write, Open: p.Open,
		Promises: uint64(p.Promises), OpenFiles: p.OpenFiles, Memory: p.Memory, FileSize: p.FileSize, Umask: p.Umask,
		Without: uint16(p.Without),
	}
}

func (m *profileMessage) profile() Sandbox {
	return Sandbox{
		UID: m.UID, GID: m.GID, Groups: m.Groups, Root: m.Root, Read: m.Read, Write: m.Write, Open: m.Open,
		Promises: seccomp.Promises(m.Promises), OpenFiles: m.OpenFiles, Memory: m.Memory, FileSize: m.FileSize, Umask: m.Umask,
		Without: sandbox.Mechanisms(m.Without),
	}
}

func (r *evidenceReply) evidence() *sandbox.Evidence {
	return &sandbox.Evidence{Status: r.Status, Root: r.Root, Namespaces: r.Namespaces, Files: r.Files, Hidden: r.Hidden}
}
