// Package config reads the server's configuration: lines of "key = value".
//
// What you get: every mistake of the file at once, each with its line, what is
// wrong and what would be right; and a [Config] whose zero value lets nobody in.
// The keys are documented in vsftpd-like.conf beside the program; a test keeps
// the two together.
//
// The file is the operator's. Nothing a client sends comes here, and no file
// but the configuration and passwd(5) is read.
package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/account"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/admission"
)

// Config is how the server is run. [Default] has every key's default; the zero
// value lets nobody in and listens nowhere.
type Config struct {
	Listen []netip.AddrPort // an invalid Addr (":21") is every address, IPv4 and IPv6

	Anonymous      bool
	AnonymousRoot  string // absolute
	AnonymousWrite bool
	AnonymousUser  Identity

	LocalUsers bool
	LocalWrite bool
	MinUID     uint32
	AnyShell   bool // check_shell = no

	VirtualUsers string // file; empty: none
	VirtualUser  Identity

	UserList      string // file; empty: none
	UserListAllow bool   // userlist_deny = no

	PassivePorts   Ports
	PassiveAddress netip.Addr // IPv4, advertised; invalid: that of the control connection
	Active         bool
	ConnectFrom    uint16 // 0 or 20

	Banner       string
	LoginTimeout time.Duration // for the whole time before login
	IdleTimeout  time.Duration // between commands
	DataTimeout  time.Duration // without progress on a data connection

	MaxSessions           int
	MaxSessionsPerAddress int // 0: no limit of its own
	Startups              Startups
	NoPenalties           bool // penalties = no
	Spares                int  // session workers kept ready

	UpgradeTimeout time.Duration // for a new binary, until it serves

	Umask   uint32
	HideIDs bool

	MetricsSocket string // empty: none

	// WorkerIDs are users and groups of session workers, one for each.
	WorkerIDs privsep.IDs
	// MonitorUser is whom the monitor becomes when it has opened what it needs.
	// Zero: the last of WorkerIDs.
	MonitorUser Identity

	Isolation         Isolation // of session workers
	FilesIsolation    Isolation // of files workers: PerLogin or PerUser
	SessionsPerWorker int       // where sessions share one

	TLSCertificate, TLSKey string // files in PEM; empty: no TLS
	PlainLogin             bool   // require_tls = no: logins in the clear too
	PlainData              bool   // require_tls_data = no: transfers in the clear too
	TLSReuse               bool   // data connections must resume the control connection's session

	from *places // nil if it was not read from a file
}

// places are the lines that set keys.
type places struct {
	file  string
	lines map[string]int
}

// Mistake is what shows only when c is put to use: where key was set, and why
// that does not work here. For a key that no line sets, the line is 0.
func (c Config) Mistake(key, problem string) Mistakes {
	if c.from == nil {
		return Mistakes{{"command line", 0, key + ": " + problem}}
	}
	return Mistakes{{c.from.file, c.from.lines[key], key + ": " + problem}}
}

// Isolation is who is served by one worker. The zero Isolation is none.
type Isolation int

const (
	PerConnection Isolation = 1 + iota // one session
	PerAddress                         // sessions of one source address
	PerAny                             // any sessions
	PerLogin                           // one session
	PerUser                            // sessions of one user
)

// Ports is a range, both ends in it.
type Ports struct{ Min, Max uint16 }

// Startups bounds the sessions that have not logged in yet: from Begin on Rate
// percent of connections are turned away, ever more until Full, and then all.
type Startups struct{ Begin, Rate, Full int }

// Limits are what max_sessions, max_sessions_per_address and max_startups say.
func (c Config) Limits() admission.Limits {
	return admission.Limits{
		Sessions: c.MaxSessions, PerSource: c.MaxSessionsPerAddress,
		Begin: c.Startups.Begin, Rate: c.Startups.Rate, Full: c.Startups.Full,
	}
}

// Penalized are the library's penalties, or none.
func (c Config) Penalized() admission.Penalties {
	if !c.NoPenalties {
		return admission.Penalties{}
	}
	return admission.Penalties{Violation: -1, Crash: -1, Deadline: -1, Login: -1, NoLogin: -1}
}

// Identity is a system user: by its name in passwd(5), or by its numbers.
type Identity struct {
	Name     string // empty: the numbers count
	UID, GID uint32
}

func (i Identity) String() string {
	if i.Name != "" {
		return i.Name
	}
	return fmt.Sprintf("%d:%d", i.UID, i.GID)
}

// resolve finds a named user's numbers.
func (i Identity) resolve() (uid, gid uint32, err error) {
	if i.Name == "" {
		return i.UID, i.GID, nil
	}
	text, err := os.ReadFile(passwdFile)
	if err != nil {
		return 0, 0, err
	}
	for line := range bytes.Lines(text) {
		f := strings.Split(string(line), ":")
		if len(f) != 7 || f[0] != i.Name {
			continue
		}
		if number(f[2], 1, 1<<32-2, &uid) != nil || number(f[3], 1, 1<<32-2, &gid) != nil {
			return 0, 0, fmt.Errorf("%s: user %q has uid %s and gid %s: name one without root's ids", passwdFile, i.Name, f[2], f[3])
		}
		return uid, gid, nil
	}
	return 0, 0, fmt.Errorf("%s: no user %q: create it, or write uid:gid", passwdFile, i.Name)
}

// passwdFile is for its names only. Who may log in, another role looks up.
const passwdFile = "/etc/passwd"

// Default is the configuration of an empty file. It lets nobody in: who may
// log in is for the operator to say.
func Default() Config {
	return Config{
		Listen:        []netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, 21)},
		AnonymousUser: Identity{UID: 65533, GID: 65533},
		MinUID:        1000,
		PassivePorts:  Ports{49152, 65535},
		Active:        true,
		Banner:        "Service ready.",
		LoginTimeout:  2 * time.Minute,
		IdleTimeout:   5 * time.Minute,
		DataTimeout:   5 * time.Minute,
		MaxSessions:   2000,
		Startups:      Startups{100, 30, 200},
		Spares:        4,
		Umask:         0o077,
		// Neither systemd (UIDS-GIDS.md: 65536 to 524287 are unused) nor
		// Debian's subuid (from 100000) nor adduser gives these to anybody.
		WorkerIDs:         privsep.IDs{First: 90000, Last: 94999},
		Isolation:         PerConnection,
		FilesIsolation:    PerLogin,
		SessionsPerWorker: 50,
		UpgradeTimeout:    30 * time.Second,
	}
}

// Check says what is wrong with c as a whole, each with the key to change.
func (c Config) Check() []string {
	var bad []string
	need := func(ok bool, text string) {
		if !ok {
			bad = append(bad, text)
		}
	}
	need(c.Anonymous || c.LocalUsers || c.VirtualUsers != "", "nobody may log in: set anonymous, local_users or virtual_users")
	need(len(c.Listen) > 0, "no address to listen on: set listen")
	need(!c.Anonymous || c.AnonymousRoot != "", "anonymous = yes needs anonymous_root")
	need(!c.AnonymousWrite || c.Anonymous, "anonymous_write = yes needs anonymous = yes")
	need(!c.LocalWrite || c.LocalUsers, "local_write = yes needs local_users = yes")
	need(c.VirtualUsers == "" || c.VirtualUser != Identity{}, "virtual_users needs virtual_user, the system user that they run as")
	need(c.PassivePorts.Min > 0 && c.PassivePorts.Min <= c.PassivePorts.Max, "passive_ports is not a range")
	need(c.MaxSessions > 0, "max_sessions is not positive")
	need(c.Spares <= c.MaxSessions, "spares is more than max_sessions: lower it")
	need(0 < c.Startups.Begin && c.Startups.Begin <= c.Startups.Full, "max_startups is not begin:percent:full with begin at most full")
	need(c.MaxSessionsPerAddress <= c.MaxSessions, "max_sessions_per_address is more than max_sessions: lower it")
	size := int64(c.WorkerIDs.Last) - int64(c.WorkerIDs.First) + 1
	// Beside them the monitor, the keepers of two configurations, and what a reload tries.
	need(size >= int64(c.MaxSessions+c.Spares+9), "worker_ids has fewer ids than max_sessions and spares need: widen it, or lower them")
	// Identities that must not reach each other: with one uid a taken-over
	// session worker could end up as who may ptrace a user's files worker.
	worker := func(i Identity) bool { return i.Name == "" && (c.WorkerIDs.Has(i.UID) || c.WorkerIDs.Has(i.GID)) }
	need(!(c.Anonymous && worker(c.AnonymousUser)), "anonymous_user is in worker_ids: give it another")
	need(!(c.VirtualUsers != "" && worker(c.VirtualUser)), "virtual_user is in worker_ids: give it another")
	need(c.MonitorUser == Identity{} || !worker(c.MonitorUser), "monitor_user is in worker_ids: give it another, or leave it out")
	need(c.MonitorUser == Identity{} || c.MonitorUser != c.AnonymousUser && c.MonitorUser != c.VirtualUser, "monitor_user is anonymous_user or virtual_user: give it another, or leave it out")
	need((c.TLSCertificate == "") == (c.TLSKey == ""), "tls_certificate and tls_key need each other: set both")
	need(!c.TLSReuse || c.TLSKey != "", "require_tls_reuse = yes needs tls_certificate and tls_key")
	need(!c.PlainLogin || c.TLSKey != "", "require_tls = no means nothing without tls_certificate and tls_key: remove it")
	need(!c.PlainData || c.TLSKey != "", "require_tls_data = no means nothing without tls_certificate and tls_key: remove it")
	return bad
}

// Reserved reports whether nobody may log in with uid: it is this server's own,
// or what several system calls take for something else.
func (c *Config) Reserved(uid uint32) bool {
	monitor, _, err := c.Monitor()
	return c.WorkerIDs.Has(uid) || err == nil && monitor == uid || uid == 65534 || uid == 65535 || uid == 1<<32-1
}

// Monitor is whom the monitor becomes; 0 and 0 for the last of WorkerIDs.
func (c Config) Monitor() (uid, gid uint32, err error) {
	if uid, gid, err = c.MonitorUser.resolve(); err != nil {
		err = fmt.Errorf("monitor_user: %w", err)
	}
	return uid, gid, err
}

// Accounts are c's settings of who may log in, with users' names resolved.
func (c Config) Accounts() (account.Settings, error) {
	s := account.Settings{UserList: c.UserList, UserListAllow: c.UserListAllow}
	if c.Anonymous {
		uid, gid, err := c.AnonymousUser.resolve()
		if err != nil {
			return account.Settings{}, fmt.Errorf("anonymous_user: %w", err)
		}
		s.Anonymous = &account.Anonymous{Root: c.AnonymousRoot, UID: uid, GID: gid, Write: c.AnonymousWrite}
	}
	if c.LocalUsers {
		s.Local = &account.Local{MinUID: c.MinUID, AnyShell: c.AnyShell, Write: c.LocalWrite}
	}
	if c.VirtualUsers != "" {
		uid, gid, err := c.VirtualUser.resolve()
		if err != nil {
			return account.Settings{}, fmt.Errorf("virtual_user: %w", err)
		}
		s.Virtual = &account.Virtual{File: c.VirtualUsers, UID: uid, GID: gid}
	}
	return s, nil
}

// Mistakes are all that is wrong with a file, up to maxMistakes.
type Mistakes []Mistake

// A Mistake is one line's. Line 0 is the file as a whole.
type Mistake struct {
	File    string
	Line    int
	Problem string // what is wrong, and after a colon what would be right
}

func (m Mistake) String() string {
	if m.Line == 0 {
		return m.File + ": " + m.Problem
	}
	return fmt.Sprintf("%s:%d: %s", m.File, m.Line, m.Problem)
}

func (m Mistakes) Error() string {
	var b strings.Builder
	for i, one := range m {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.String())
	}
	return b.String()
}
