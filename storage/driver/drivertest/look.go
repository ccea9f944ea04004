package drivertest

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

func modTime() time.Time { return time.Unix(1700000000, 0) }

// look lists a tree: path → what it is. Files with several names tell with whom they
// share them.
func look(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	names := map[uint64][]string{}
	err := filepath.WalkDir(root+"/.", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil || rel == "." {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		if !d.IsDir() && st.Nlink > 1 {
			names[st.Ino] = append(names[st.Ino], rel)
		}
		all[rel], err = describeFile(name, &st)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range names {
		slices.Sort(list)
		for _, n := range list[1:] {
			all[n] = "= " + list[0]
		}
	}
	return all
}

func describeFile(name string, st *unix.Stat_t) (string, error) {
	perm := fmt.Sprintf(" %o", st.Mode&0o7777)
	if st.Uid != 0 {
		perm += fmt.Sprintf(" of %d", st.Uid)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "dir" + perm, nil
	case unix.S_IFLNK:
		to, err := os.Readlink(name)
		return "-> " + to, err
	case unix.S_IFIFO:
		return "fifo" + perm, nil
	case unix.S_IFSOCK:
		return "socket" + perm, nil
	case unix.S_IFCHR:
		return fmt.Sprintf("char %d:%d%s", unix.Major(st.Rdev), unix.Minor(st.Rdev), perm), nil
	case unix.S_IFBLK:
		return fmt.Sprintf("block %d:%d%s", unix.Major(st.Rdev), unix.Minor(st.Rdev), perm), nil
	}
	data, err := os.ReadFile(name)
	if len(data) > 64 {
		data = fmt.Appendf(nil, "%d bytes", len(data))
	}
	return string(data) + perm, err
}

// same compares a tree with what is wanted.
func same(t *testing.T, root string, want map[string]string) {
	t.Helper()
	got := look(t, root)
	if maps.Equal(got, want) {
		return
	}
	var lines []string
	for k, v := range got {
		if want[k] != v {
			lines = append(lines, fmt.Sprintf("%s is %q, want %q", k, v, want[k]))
		}
	}
	for k, v := range want {
		if _, ok := got[k]; !ok {
			lines = append(lines, fmt.Sprintf("%s is missing, want %q", k, v))
		}
	}
	slices.Sort(lines)
	t.Errorf("%s:\n%s", root, strings.Join(lines, "\n"))
}
