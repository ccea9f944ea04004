package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplacesWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for i, content := range []string{"first and long", "second"} {
		t.Run(content, func(t *testing.T) {
			if err := Write(path, []byte(content), 0o640, i == 1); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil || string(data) != content {
				t.Errorf("%q %v", data, err)
			}
		})
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%v %v", names, err)
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "d")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), 0o600, false); err == nil {
		t.Error("a directory was replaced")
	}
	if err := WriteJSON(filepath.Join(dir, "j"), func() {}, 0o600, false); err == nil {
		t.Error("a function was encoded")
	}
	if err := Write(filepath.Join(dir, "no", "f"), nil, 0o600, false); err == nil {
		t.Error("no error without the directory")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%v %v", names, err)
	}
}
