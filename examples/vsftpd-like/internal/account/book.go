package account

import (
	"context"
	"errors"
	"hash/maphash"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// Settings say who may log in. The zero value lets nobody in.
type Settings struct {
	Anonymous *Anonymous
	Local     *Local
	Virtual   *Virtual

	// UserList is a file of names, one a line. They are refused; with
	// UserListAllow they are the only ones let in. It holds for the anonymous
	// account too, by the name that the client sends. Empty: no list.
	UserList      string
	UserListAllow bool

	// Concurrent is how many passwords are checked at once; 0 is 2. Each
	// takes a processor, and 16 MiB at Debian's yescrypt cost (128 MiB at the
	// most that is accepted).
	Concurrent int
}

// Paths are the files that these settings read, in the order of their use.
func (s *Settings) Paths() (all []string) {
	if s.Local != nil {
		l := s.Local.located()
		all = append(all, l.Passwd, l.Shadow, l.Group)
		if !l.AnyShell {
			all = append(all, l.Shells)
		}
	}
	if s.Virtual != nil {
		all = append(all, s.Virtual.File)
	}
	if s.UserList != "" {
		all = append(all, s.UserList)
	}
	return all
}

// A Book looks up accounts in what files said when they were opened. Its
// methods may be called from several goroutines.
type Book struct {
	settings Settings
	seed     maphash.Seed
	turns    chan struct{} // as many as passwords checked at once
	now      func() time.Time
	roll     *roll
}

// roll is what the files said at one time. It is never changed once loaded.
type roll struct {
	entries   map[string]*entry
	secrets   []*secret // to spend time on
	anonymous *entry
	listed    map[string]bool
	files     []*os.File // still to be read
}

// Open reads files, which are those of s.Paths, and keeps them. A mistake is a
// [LineError], several are joined, and then there's no Book.
func Open(s Settings, files []*os.File) (*Book, error) {
	if s.Concurrent <= 0 {
		s.Concurrent = 2
	}
	if s.Anonymous == nil && s.Local == nil && s.Virtual == nil {
		return nil, errors.New("nobody may log in: allow anonymous, local or virtual users")
	}
	r, err := load(s, files)
	if err != nil {
		return nil, err
	}
	return &Book{settings: s, seed: maphash.MakeSeed(), turns: make(chan struct{}, s.Concurrent), now: time.Now, roll: r}, nil
}

// Authenticate returns the account if the password is right and nothing
// speaks against the account, else a *[Refusal]. It waits for its turn; if ctx
// ends first, the error is ctx's. A check that has begun is not interrupted.
func (b *Book) Authenticate(ctx context.Context, name, password string) (*Account, error) {
	refuse := func(why Reason, err error) (*Account, error) {
		return nil, &Refusal{Name: name, Reason: why, Err: err}
	}
	if !ValidName(name) || !ValidPassword(password) {
		return refuse(Malformed, nil)
	}
	r := b.roll
	if isAnonymous(name) && r.anonymous != nil {
		if !b.allows(r, name) {
			return refuse(NotListed, nil)
		}
		return &Account{r.anonymous}, nil
	}

	e := r.entries[name]
	var own *secret
	if e != nil {
		own = e.secret
	}
	proof, err := b.check(ctx, r, own, name, password)
	if err != nil {
		return nil, err
	}
	switch {
	case e == nil:
		return refuse(Unknown, nil)
	case e.standing != inGoodStanding:
		return refuse(e.standing, nil)
	case !proof.proves(own):
		return refuse(WrongPassword, nil)
	case !b.allows(r, name):
		return refuse(NotListed, nil)
	}
	if why := e.aging.reason(b.now()); why != inGoodStanding {
		return refuse(why, nil)
	}
	return &Account{e}, nil
}

// check verifies the password against own or, where there's none, against a
// secret of somebody else's, whose verdict then proves nothing. A name always
// gets the same one, so that the times of unknown names are spread just as
// those of known ones, whatever mixture of schemes is in use.
func (b *Book) check(ctx context.Context, r *roll, own *secret, name, password string) (verdict, error) {
	try := own
	if try == nil {
		if len(r.secrets) == 0 {
			return verdict{}, ctx.Err()
		}
		try = r.secrets[maphash.String(b.seed, name)%uint64(len(r.secrets))]
	}
	select {
	case b.turns <- struct{}{}:
	case <-ctx.Done():
		return verdict{}, ctx.Err()
	}
	defer func() { <-b.turns }()
	if err := ctx.Err(); err != nil {
		return verdict{}, err
	}
	return try.verify(password), nil
}

// allows reports what the user list says.
func (b *Book) allows(r *roll, name string) bool {
	return b.settings.UserList == "" || r.listed[name] == b.settings.UserListAllow
}

func load(s Settings, files []*os.File) (r *roll, err error) {
	r = &roll{entries: map[string]*entry{}, listed: map[string]bool{}, files: files}
	if len(files) != len(s.Paths()) {
		return nil, errors.New("not the files of these settings")
	}
	if s.Anonymous != nil {
		if r.anonymous, err = s.Anonymous.entry(); err != nil {
			return nil, err
		}
	}
	// What is wrong with one file does not hide what is with the next.
	var wrong []error
	if s.Local != nil {
		wrong = append(wrong, s.Local.load(r))
	}
	if s.Virtual != nil {
		wrong = append(wrong, s.Virtual.load(r))
	}
	if s.UserList != "" {
		wrong = append(wrong, r.each(s.UserList, false, func(_ int, line string) error {
			name := strings.TrimSpace(line)
			if !ValidName(name) {
				return errLine{"not a user name", "write one name a line"}
			}
			r.listed[name] = true
			return nil
		}))
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(r.entries)) {
		if e := r.entries[name]; e.secret != nil {
			r.secrets = append(r.secrets, e.secret)
		}
	}
	return r, nil
}

// each reads the next of the files, which is path, and calls parse with its
// lines.
func (r *roll) each(path string, private bool, parse func(n int, line string) error) error {
	f := r.files[0]
	r.files = r.files[1:]
	s, err := readSource(path, f, private)
	if err != nil {
		return err
	}
	return s.lines(parse)
}

// add enters a name that was not there. A name in two places would have two
// passwords.
func (r *roll) add(e *entry) error {
	if r.entries[e.name] != nil {
		return errLine{"name occurs twice", "remove or rename one; a virtual user can't have a system user's name"}
	}
	r.entries[e.name] = e
	return nil
}
