package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// anybody is the least that makes a configuration complete.
const anybody = "anonymous = yes\nanonymous_root = /srv/ftp\n"

func TestParse(t *testing.T) {
	got, err := Parse("conf", []byte(`# comment

	listen = 127.0.0.1:2121, [::1]:2121,:21
anonymous=YES
anonymous_root = /srv/a b # c
anonymous_write = yes
anonymous_user = 7:8
local_users = yes
local_write = yes
min_uid = 500
check_shell = no
virtual_users = /etc/users
virtual_user = ftpusers
userlist_file = /etc/list
userlist_deny = no
passive_ports = 50000 - 50010
passive_address = 192.0.2.7
active = no
connect_from_port = 20
banner = Hello = world
login_timeout = 30
idle_timeout = 1m30s
data_timeout = 24h
max_sessions = 10
max_sessions_per_address = 5
max_startups = 1:2:3
penalties = no
spares = 0
upgrade_timeout = 1m
umask = 022
hide_ids = yes
metrics_socket = /run/ftp.sock
worker_ids = 100 - 200
monitor_user = 300:301
isolation = address
files_isolation = user
sessions_per_worker = 7`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Listen:    []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:2121"), netip.MustParseAddrPort("[::1]:2121"), netip.AddrPortFrom(netip.Addr{}, 21)},
		Anonymous: true, AnonymousRoot: "/srv/a b # c", AnonymousWrite: true, AnonymousUser: Identity{UID: 7, GID: 8},
		LocalUsers: true, LocalWrite: true, MinUID: 500, AnyShell: true,
		VirtualUsers: "/etc/users", VirtualUser: Identity{Name: "ftpusers"},
		UserList: "/etc/list", UserListAllow: true,
		PassivePorts: Ports{50000, 50010}, PassiveAddress: netip.MustParseAddr("192.0.2.7"), ConnectFrom: 20,
		Banner: "Hello = world", LoginTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second, DataTimeout: 24 * time.Hour,
		MaxSessions: 10, MaxSessionsPerAddress: 5, Startups: Startups{1, 2, 3}, NoPenalties: true, UpgradeTimeout: time.Minute, Umask: 0o022, HideIDs: true, MetricsSocket: "/run/ftp.sock", WorkerIDs: privsep.IDs{First: 100, Last: 200}, MonitorUser: Identity{UID: 300, GID: 301},
		Isolation: PerAddress, FilesIsolation: PerUser, SessionsPerWorker: 7,
	}
	if got.Mistake("umask", "why").Error() != "conf:30: umask: why" {
		t.Errorf("place of umask: %v", got.Mistake("umask", "why"))
	}
	got.from = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "nobody may log in: set anonymous"},
		{"anonymous = yes", "anonymous = yes needs anonymous_root"},
		{"listen", "conf:3: \"listen\" has no =: write key = value"},
		{"anonymous_enable = yes", "conf:3: unknown key \"anonymous_enable\": here it is called anonymous"},
		{"pasv_min_port=1", "here it is called passive_ports"},
		{"idel_timeout = 5", "unknown key \"idel_timeout\": is idle_timeout meant?"},
		{"frobnicate = 5", "unknown key \"frobnicate\": the example file"},
		{"Banner = x", "is banner meant?"},
		{strings.Repeat("k", 1000) + " = 1", "conf:3: unknown key"},
		{"anonymous = no", "conf:3: anonymous is set a second time: remove this line or line 1"},
		{"hide_ids = maybe", "conf:3: hide_ids = maybe: write yes or no"},
		{"hide_ids = 1", "write yes or no"},
		{"check_shell = ", "write yes or no"},
		{"hide_ids = yes # really", "write yes or no"},
		{"listen = 21", "conf:3: listen = 21: write addresses as"},
		{"listen = localhost:21", "write addresses as"},
		{"listen = :0", "write addresses as"},
		{"listen = 127.0.0.1:0", "write addresses as"},
		{"listen = :65536", "write addresses as"},
		{"listen = :21, :21", "occurs twice"},
		{"listen = ,", "write 1 to 64"},
		{"passive_ports = 5000", "write a range"},
		{"passive_ports = 20-30", "write a range"},
		{"passive_ports = 5000-4000", "write a range"},
		{"passive_ports = 5000-70000", "write a range"},
		{"passive_address = ftp.example.org", "write the IPv4 address"},
		{"passive_address = ::1", "write the IPv4 address"},
		{"passive_address = 0.0.0.0", "write the IPv4 address"},
		{"connect_from_port = 21", "write 20, or 0"},
		{"login_timeout = 0", "write seconds"},
		{"login_timeout = -5s", "write seconds"},
		{"login_timeout = 25h", "write seconds"},
		{"login_timeout = 99999999999999999999", "write seconds"},
		{"max_sessions = 0", "write a number from 1 to 100000"},
		{"max_sessions = -1", "write a number"},
		{"max_startups = 10:30", "write begin:percent:full, as 100:30:200"},
		{"max_startups = 10:101:100", "write begin:percent:full"},
		{"max_startups = 0:30:100", "write begin:percent:full"},
		{"max_startups = 101:30:100", "with begin at most full"},
		{"umask = 77", "with a leading 0"},
		{"umask = 0888", "with a leading 0"},
		{"umask = 01777", "with a leading 0"},
		{"umask =", "with a leading 0"},
		{"worker_uid = 5", "unknown key \"worker_uid\""},
		{"worker_ids = 0-5000", "write a range"},
		{"worker_ids = 5000", "write a range"},
		{"worker_ids = 9000-8000", "write a range"},
		{"worker_ids = 60000-65534", "write a range"},
		{"worker_ids = 90000-90001", "worker_ids has fewer ids"},
		{"monitor_user = 90001:5", "monitor_user is in worker_ids"},
		{"monitor_user = 65533:65533", "monitor_user is anonymous_user"},
		{"monitor_user = 0:0", "neither of them 0"},
		{"isolation = login", "write connection or address or shared"},
		{"files_isolation = shared", "write login or user"},
		{"sessions_per_worker = 1", "write a number from 2"},
		{"worker_ids = 61000-65533", "anonymous_user is in worker_ids"},
		{"anonymous_user = 0:0", "neither of them 0"},
		{"anonymous_user = 5:0", "neither of them 0"},
		{"anonymous_user = 1000", "write a user's name, or uid:gid"},
		{"anonymous_user = -x", "write a user's name, or uid:gid"},
		{"virtual_users = users", "write an absolute path"},
		{"virtual_users = /etc/../users", "write an absolute path"},
		{"virtual_users = /etc/users", "virtual_users needs virtual_user"},
		{"virtual_users = /etc/users\nvirtual_user = 90001:5", "virtual_user is in worker_ids"},
		{"local_write = yes", "local_write = yes needs local_users"},
		{"spares = 100\nmax_sessions = 5", "spares is more than max_sessions"},
		{"max_sessions_per_address = 100\nmax_sessions = 5", "max_sessions_per_address is more"},
		{"banner = a\x00b", "conf:3: control character"},
		{"banner = a\rb", "conf:3: control character"},
		{"banner = \xff", "conf:3: control character or broken UTF-8"},
		{"banner = " + strings.Repeat("b", 201), "write one line of 1 to 200 bytes"},
		{"=", "unknown key \"\""},
	} {
		before := anybody
		if strings.HasPrefix(c.want, "nobody") || strings.Contains(c.want, "needs anonymous_root") {
			before = ""
		}
		got, err := Parse("conf", []byte(before+c.text+"\n"))
		var m Mistakes
		if !errors.As(err, &m) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: got %v, want %q", c.text, err, c.want)
		}
		if !reflect.DeepEqual(got, Config{}) {
			t.Errorf("%.60q: got a configuration with the error", c.text)
		}
	}
	if _, err := Parse("conf", []byte("anonymous_root = /\n")); err == nil || !strings.Contains(err.Error(), "whole system is never served") {
		t.Errorf("anonymous_root = /: got %v", err)
	}
}

func TestAllMistakesAtOnceButBounded(t *testing.T) {
	_, err := Parse("conf", []byte(strings.Repeat("x\n", 1000)))
	m, _ := err.(Mistakes)
	if len(m) != maxMistakes+1 || m[0].Line != 1 || m[19].Line != 20 || m[20].Problem != "and 980 mistakes more" {
		t.Errorf("got %d mistakes: %v", len(m), err)
	}
	if _, err := Parse("conf", make([]byte, maxFile+1)); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("an oversized text: got %v", err)
	}
}

func TestZeroLetsNobodyIn(t *testing.T) {
	for name, c := range map[string]Config{"zero": {}, "default": Default()} {
		if len(c.Check()) == 0 {
			t.Errorf("the %s configuration may be served", name)
		}
		if s, err := c.Accounts(); err != nil || s.Anonymous != nil || s.Local != nil || s.Virtual != nil {
			t.Errorf("the %s configuration lets in %+v, %v", name, s, err)
		}
	}
}

func TestAccounts(t *testing.T) {
	c := Default()
	c.Anonymous, c.AnonymousRoot = true, "/srv/ftp"
	c.VirtualUsers, c.VirtualUser = "/etc/users", Identity{Name: "nobody"}
	s, err := c.Accounts()
	if err != nil || s.Anonymous.UID != 65533 || s.Anonymous.Root != "/srv/ftp" || s.Virtual.UID == 0 || s.Local != nil {
		t.Errorf("got %+v, %v", s, err)
	}
	c.VirtualUser = Identity{Name: "no_such_user_here"}
	if s, err := c.Accounts(); err == nil || s.Anonymous != nil || !strings.Contains(err.Error(), "virtual_user: ") {
		t.Errorf("unknown user: got %+v, %v", s, err)
	}
	c.VirtualUser = Identity{Name: "root"}
	if _, err := c.Accounts(); err == nil {
		t.Error("virtual users may run as root")
	}
}

// The example names every key, and its values are the defaults.
func TestExampleFile(t *testing.T) {
	path := filepath.Join("..", "..", "vsftpd-like.conf")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(path, append([]byte(anybody), text...)); err != nil {
		t.Errorf("as it is: %v", err)
	}
	needs := map[string]string{ // keys whose value stands for no default, or that need others
		"anonymous_root": "-", "virtual_users": "virtual_user = ftpusers\n", "virtual_user": "-",
		"userlist_file": "-", "metrics_socket": "-", "monitor_user": "-", "passive_address": "-",
		"tls_certificate": "-", "tls_key": "-",
	}
	defaults, err := Parse("", []byte(anybody))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		value, found := "", 0
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, "#"+k.name+" = "); ok {
				value, found = strings.TrimSpace(v), found+1
			}
		}
		if found != 1 {
			t.Errorf("%s: documented %d times, want once", k.name, found)
			continue
		}
		c := defaults
		if err := k.set(&c, value); err != nil {
			t.Errorf("%s = %s: %v", k.name, value, err)
		}
		c.Anonymous, c.AnonymousRoot = true, "/srv/ftp"
		if needs[k.name] == "" && !reflect.DeepEqual(c, defaults) {
			t.Errorf("%s = %s is not the default", k.name, value)
		}
		for _, theirs := range k.theirs {
			if find(theirs) != nil {
				t.Errorf("%s is a key of ours and an alias of %s", theirs, k.name)
			}
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "conf")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
	if err := os.WriteFile(path, []byte(anybody), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || !c.Anonymous {
		t.Errorf("got %+v, %v", c, err)
	}
	if err := os.Chmod(path, 0o602); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("writable for everybody: got %v", err)
	}
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("directory: got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(anybody))
	f.Add([]byte("listen = :21,[::1%eth0]:21\npassive_ports=1024-1024\numask = 0\n"))
	f.Add([]byte("anonymous_user = a:b\nlocal_users = yes\nidle_timeout = 1e9h\n"))
	f.Add([]byte("x\x00=\xff\n= =\n"))
	if text, err := os.ReadFile(filepath.Join("..", "..", "vsftpd-like.conf")); err == nil {
		f.Add([]byte(strings.ReplaceAll(string(text), "\n#", "\n")))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("conf", text)
		if err != nil {
			m, ok := err.(Mistakes)
			if !ok || len(m) == 0 || len(m) > maxMistakes+1 || !reflect.DeepEqual(c, Config{}) {
				t.Fatalf("got %+v with %v", c, err)
			}
			if strings.Count(err.Error(), "\n") != len(m)-1 {
				t.Fatalf("%q is not a line for each mistake", err)
			}
			return
		}
		if bad := c.Check(); bad != nil || c.WorkerIDs.Has(0) || c.PassivePorts.Min < 1024 || c.LoginTimeout <= 0 {
			t.Fatalf("taken: %+v, %v", c, bad)
		}
	})
}

func ExampleParse() {
	_, err := Parse("vsftpd-like.conf", []byte("anonymous_enable = YES\nidle_timeout = 5 minutes\n"))
	fmt.Println(err)
	// Output:
	// vsftpd-like.conf:1: unknown key "anonymous_enable": here it is called anonymous
	// vsftpd-like.conf:2: idle_timeout = 5 minutes: write seconds, or a time such as 90s or 5m, from 1s to 24h
}
