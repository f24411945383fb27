package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/account"
	"github.com/go-privsep/sallyport/privsep"
)

// key is one key of the file.
type key struct {
	name   string
	set    func(c *Config, value string) error
	theirs []string // vsftpd's names of it
}

var keys = []key{
	{"listen", func(c *Config, v string) error { return listen(v, &c.Listen) }, []string{"listen_address", "listen_port", "listen_ipv6", "listen_address6"}},
	{"anonymous", func(c *Config, v string) error { return yes(v, &c.Anonymous) }, []string{"anonymous_enable"}},
	{"anonymous_root", func(c *Config, v string) error { return dir(v, &c.AnonymousRoot) }, []string{"anon_root"}},
	{"anonymous_write", func(c *Config, v string) error { return yes(v, &c.AnonymousWrite) }, []string{"anon_upload_enable", "anon_mkdir_write_enable", "anon_other_write_enable"}},
	{"anonymous_user", func(c *Config, v string) error { return identity(v, &c.AnonymousUser) }, []string{"ftp_username"}},
	{"local_users", func(c *Config, v string) error { return yes(v, &c.LocalUsers) }, []string{"local_enable"}},
	{"local_write", func(c *Config, v string) error { return yes(v, &c.LocalWrite) }, []string{"write_enable"}},
	{"min_uid", func(c *Config, v string) error { return number(v, 1, 1<<31, &c.MinUID) }, nil},
	{"check_shell", func(c *Config, v string) error { return no(v, &c.AnyShell) }, nil},
	{"virtual_users", func(c *Config, v string) error { return file(v, &c.VirtualUsers) }, []string{"guest_enable", "user_sub_token"}},
	{"virtual_user", func(c *Config, v string) error { return identity(v, &c.VirtualUser) }, []string{"guest_username"}},
	{"userlist_file", func(c *Config, v string) error { return file(v, &c.UserList) }, []string{"userlist_enable"}},
	{"userlist_deny", func(c *Config, v string) error { return no(v, &c.UserListAllow) }, nil},
	{"passive_ports", func(c *Config, v string) error { return ports(v, &c.PassivePorts) }, []string{"pasv_min_port", "pasv_max_port"}},
	{"passive_address", func(c *Config, v string) error { return ipv4(v, &c.PassiveAddress) }, []string{"pasv_address"}},
	{"active", func(c *Config, v string) error { return yes(v, &c.Active) }, []string{"port_enable"}},
	{"connect_from_port", func(c *Config, v string) error { return from(v, &c.ConnectFrom) }, []string{"connect_from_port_20", "ftp_data_port"}},
	{"banner", func(c *Config, v string) error { return banner(v, &c.Banner) }, []string{"ftpd_banner", "banner_file"}},
	{"login_timeout", func(c *Config, v string) error { return span(v, &c.LoginTimeout) }, nil},
	{"idle_timeout", func(c *Config, v string) error { return span(v, &c.IdleTimeout) }, []string{"idle_session_timeout"}},
	{"data_timeout", func(c *Config, v string) error { return span(v, &c.DataTimeout) }, []string{"data_connection_timeout", "accept_timeout", "connect_timeout"}},
	{"max_sessions", func(c *Config, v string) error { return number(v, 1, 100_000, &c.MaxSessions) }, []string{"max_clients"}},
	{"max_sessions_per_address", func(c *Config, v string) error { return number(v, 0, 100_000, &c.MaxSessionsPerAddress) }, []string{"max_per_ip"}},
	{"max_startups", func(c *Config, v string) error { return startups(v, &c.Startups) }, nil},
	{"penalties", func(c *Config, v string) error { return no(v, &c.NoPenalties) }, []string{"delay_failed_login"}},
	{"spares", func(c *Config, v string) error { return number(v, 0, 1000, &c.Spares) }, nil},
	{"upgrade_timeout", func(c *Config, v string) error { return span(v, &c.UpgradeTimeout) }, nil},
	{"umask", func(c *Config, v string) error { return octal(v, &c.Umask) }, []string{"local_umask", "anon_umask", "file_open_mode"}},
	{"hide_ids", func(c *Config, v string) error { return yes(v, &c.HideIDs) }, nil},
	{"metrics_socket", func(c *Config, v string) error { return file(v, &c.MetricsSocket) }, nil},
	{"worker_ids", func(c *Config, v string) error { return ids(v, &c.WorkerIDs) }, []string{"nopriv_user"}},
	{"monitor_user", func(c *Config, v string) error { return identity(v, &c.MonitorUser) }, nil},
	{"isolation", func(c *Config, v string) error {
		return oneOf(v, &c.Isolation, choice{"connection", PerConnection}, choice{"address", PerAddress}, choice{"shared", PerAny})
	}, []string{"one_process_model"}},
	{"files_isolation", func(c *Config, v string) error {
		return oneOf(v, &c.FilesIsolation, choice{"login", PerLogin}, choice{"user", PerUser})
	}, nil},
	{"sessions_per_worker", func(c *Config, v string) error { return number(v, 2, 1000, &c.SessionsPerWorker) }, nil},
	{"tls_certificate", func(c *Config, v string) error { return file(v, &c.TLSCertificate) }, []string{"rsa_cert_file", "dsa_cert_file", "ssl_enable"}},
	{"tls_key", func(c *Config, v string) error { return file(v, &c.TLSKey) }, []string{"rsa_private_key_file", "dsa_private_key_file"}},
	{"require_tls", func(c *Config, v string) error { return no(v, &c.PlainLogin) }, []string{"force_local_logins_ssl", "force_anon_logins_ssl", "allow_anon_ssl"}},
	{"require_tls_data", func(c *Config, v string) error { return no(v, &c.PlainData) }, []string{"force_local_data_ssl", "force_anon_data_ssl"}},
	{"require_tls_reuse", func(c *Config, v string) error { return yes(v, &c.TLSReuse) }, []string{"require_ssl_reuse"}},
}

func find(name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}

func yes(v string, to *bool) error {
	switch {
	case strings.EqualFold(v, "yes"):
		*to = true
	case strings.EqualFold(v, "no"):
		*to = false
	default:
		return errors.New("write yes or no")
	}
	return nil
}

// no sets a field whose safe zero is what yes means.
func no(v string, to *bool) error {
	err := yes(v, to)
	*to = !*to && err == nil
	return err
}

func number[T int | uint32](v string, least, most uint64, to *T) error {
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil || n < least || n > most {
		return fmt.Errorf("write a number from %d to %d", least, most)
	}
	*to = T(n)
	return nil
}

func startups(v string, to *Startups) error {
	f := strings.Split(v, ":")
	var s Startups
	if len(f) != 3 || number(f[0], 1, 100_000, &s.Begin) != nil || number(f[1], 1, 100, &s.Rate) != nil ||
		number(f[2], 1, 100_000, &s.Full) != nil || s.Begin > s.Full {
		return errors.New("write begin:percent:full, as 100:30:200, with begin at most full")
	}
	*to = s
	return nil
}

// span reads seconds, as vsftpd does, or a number with a unit.
func span(v string, to *time.Duration) error {
	if _, err := strconv.ParseUint(v, 10, 32); err == nil {
		v += "s"
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < time.Second || d > 24*time.Hour {
		return errors.New("write seconds, or a time such as 90s or 5m, from 1s to 24h")
	}
	*to = d
	return nil
}

func octal(v string, to *uint32) error {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > 0o777 || v[0] != '0' {
		return errors.New("write an octal number with a leading 0, from 000 to 0777")
	}
	*to = uint32(n)
	return nil
}

func file(v string, to *string) error {
	if !path.IsAbs(v) || path.Clean(v) != v {
		return errors.New("write an absolute path without . or .. or doubled or trailing slash")
	}
	*to = v
	return nil
}

func dir(v string, to *string) error {
	if v == "/" {
		return errors.New("the whole system is never served: name a directory below /")
	}
	return file(v, to)
}

func identity(v string, to *Identity) error {
	u, g, ok := strings.Cut(v, ":")
	if !ok && account.ValidName(v) && strings.Trim(v, "0123456789") != "" {
		*to = Identity{Name: v}
		return nil
	}
	var i Identity
	if !ok || number(u, 1, 1<<32-2, &i.UID) != nil || number(g, 1, 1<<32-2, &i.GID) != nil {
		return errors.New("write a user's name, or uid:gid in numbers, neither of them 0")
	}
	*to = i
	return nil
}

func listen(v string, to *[]netip.AddrPort) error {
	var list []netip.AddrPort
	for f := range strings.FieldsFuncSeq(v, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		a, err := netip.ParseAddrPort(f)
		if port, ok := strings.CutPrefix(f, ":"); ok {
			var n uint32
			err = number(port, 1, 65535, &n)
			a = netip.AddrPortFrom(netip.Addr{}, uint16(n))
		}
		if err != nil || a.Port() == 0 {
			return errors.New("write addresses as 192.0.2.1:21, [2001:db8::1]:21 or :21 for all, with commas between")
		}
		for _, b := range list {
			if a == b {
				return fmt.Errorf("%s occurs twice: remove one", f)
			}
		}
		list = append(list, a)
	}
	if len(list) == 0 || len(list) > 64 {
		return errors.New("write 1 to 64 addresses")
	}
	*to = list
	return nil
}

func ports(v string, to *Ports) error {
	a, b, ok := strings.Cut(v, "-")
	var low, high uint32
	if !ok || number(strings.TrimSpace(a), 1024, 65535, &low) != nil || number(strings.TrimSpace(b), 1024, 65535, &high) != nil || low > high {
		return errors.New("write a range such as 50000-50999, within 1024 and 65535")
	}
	*to = Ports{uint16(low), uint16(high)}
	return nil
}

func ipv4(v string, to *netip.Addr) error {
	a, err := netip.ParseAddr(v)
	if err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
		return errors.New("write the IPv4 address, in numbers, that clients reach this server at")
	}
	*to = a
	return nil
}

func from(v string, to *uint16) error {
	if v != "0" && v != "20" {
		return errors.New("write 20, or 0 for any port")
	}
	*to = 0
	if v == "20" {
		*to = 20
	}
	return nil
}

func banner(v string, to *string) error {
	if v == "" || len(v) > 200 {
		return errors.New("write one line of 1 to 200 bytes")
	}
	*to = v
	return nil
}

func ids(v string, to *privsep.IDs) error {
	a, b, ok := strings.Cut(v, "-")
	var r privsep.IDs
	if !ok || number(strings.TrimSpace(a), 1, 1<<32-2, &r.First) != nil || number(strings.TrimSpace(b), 1, 1<<32-2, &r.Last) != nil ||
		r.First > r.Last || r.Has(65534) || r.Has(65535) {
		return errors.New("write a range such as 90000-94999, of ids that nobody has, without 65534 and 65535")
	}
	*to = r
	return nil
}

type choice struct {
	word string
	is   Isolation
}

func oneOf(v string, to *Isolation, choices ...choice) error {
	var words []string
	for _, c := range choices {
		if c.word == v {
			*to = c.is
			return nil
		}
		words = append(words, c.word)
	}
	return errors.New("write " + strings.Join(words, " or "))
}
