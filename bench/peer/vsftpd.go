package peer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Vsftpd returns vsftpd as the distribution's package installs it. What the
// configuration leaves out, such as isolation and the seccomp sandbox, is as
// the package ships it.
func Vsftpd() (*Server, error) {
	path, err := exec.LookPath("vsftpd")
	if err != nil {
		path = "/usr/sbin/vsftpd"
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
	}
	version := "of unknown version"
	if out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "vsftpd").Output(); err == nil {
		version = strings.TrimSpace(string(out))
	}
	return &Server{Name: "vsftpd", Version: version, Command: func(s *Site) ([]string, error) {
		empty := filepath.Join(s.Dir, "empty")
		if err := os.Mkdir(empty, 0o755); err != nil {
			return nil, err
		}
		file := filepath.Join(s.Dir, "vsftpd.conf")
		config := fmt.Sprintf(`listen=YES
listen_address=127.0.0.1
listen_port=%d
background=NO
secure_chroot_dir=%s
pam_service_name=vsftpd
anonymous_enable=YES
anon_root=%s
anon_upload_enable=YES
anon_other_write_enable=YES
anon_mkdir_write_enable=YES
anon_max_rate=0
local_enable=YES
chroot_local_user=YES
allow_writeable_chroot=YES
write_enable=YES
pasv_min_port=%d
pasv_max_port=%d
max_clients=0
max_per_ip=0
xferlog_enable=NO
`, s.Port, empty, s.Root, s.MinPort, s.MaxPort)
		return []string{path, file}, os.WriteFile(file, []byte(config), 0o600)
	}}, nil
}
