package config

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCredentialsOfOneServerOnly(t *testing.T) {
	enc := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	f, err := Load(write(t, `{"auths":{"a.example":{"auth":"`+enc("u:p:q")+`"},"https://b.example/v2/":{"auth":"`+enc("x:y")+`"},"bad":{"auth":"!"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]Auth{
		"a.example": {Username: "u", Password: "p:q"}, "b.example": {Username: "x", Password: "y"},
		"c.example": {}, "example": {}, "evil-a.example": {}, "a.example:5000": {},
	} {
		t.Run(server, func(t *testing.T) {
			got, err := f.Credentials(context.Background(), server)
			if err != nil || got != want {
				t.Errorf("%s: %+v, %v; want %+v", server, got, err, want)
			}
		})
	}
	if got, err := f.Credentials(context.Background(), "bad"); err == nil || got != (Auth{}) {
		t.Errorf("an entry that cannot be parsed gives %+v, %v", got, err)
	}
}

func TestBrokenFileGivesNothing(t *testing.T) {
	dir := write(t, `{"auths":{"a":{"auth":"dTpw"}},"credsStore":"x", "HttpHeaders": 3}`)
	f, err := Load(dir)
	if err == nil {
		t.Fatal("no error")
	}
	if len(f.Auths) != 0 || f.CredsStore != "" {
		t.Errorf("half a file is used: %+v", f)
	}
	if err := f.Save(); err == nil {
		t.Error("a file that could not be parsed was overwritten")
	}
}

func TestSaveKeepsForeignKeys(t *testing.T) {
	dir := write(t, `{"plugins":{"a":{"b":"c"}},"auths":{"a":{"auth":"dTpw"}}}`)
	f, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Store(context.Background(), "n.example", Auth{Username: "u", Password: "p"}); err != nil {
		t.Fatal(err)
	}
	if found, err := f.Erase(context.Background(), "a"); err != nil || !found {
		t.Fatal(found, err)
	}
	b, _ := os.ReadFile(filepath.Join(dir, "config.json"))
	if s := string(b); !strings.Contains(s, `"plugins"`) || !strings.Contains(s, "n.example") || strings.Contains(s, `"a": {`+"\n\t\t\t\"auth\"") {
		t.Errorf("wrote %s", s)
	}
	if st, _ := os.Stat(filepath.Join(dir, "config.json")); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestCredentialHelper(t *testing.T) {
	bin := t.TempDir()
	script := `#!/bin/sh
read -r s
case "$1:$s" in
get:h.example) echo '{"ServerURL":"h.example","Username":"hu","Secret":"hs"}';;
get:t.example) echo '{"ServerURL":"t.example","Username":"<token>","Secret":"tok"}';;
get:*) echo "credentials not found in native keychain"; exit 1;;
esac
`
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-fake"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	f, err := Load(write(t, `{"credsStore":"fake","credHelpers":{"x.example":"../../bin/sh"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]Auth{
		"h.example": {Username: "hu", Password: "hs"}, "t.example": {IdentityToken: "tok"}, "n.example": {},
	} {
		t.Run(server, func(t *testing.T) {
			got, err := f.Credentials(context.Background(), server)
			if err != nil || got != want {
				t.Errorf("%s: %+v, %v; want %+v", server, got, err, want)
			}
		})
	}
	if _, err := f.Credentials(context.Background(), "x.example"); err == nil {
		t.Error("a helper with a path was run")
	}
}

func FuzzDecodeAuth(f *testing.F) {
	f.Add("dTpw")
	f.Fuzz(func(t *testing.T, s string) {
		if u, _, err := decodeAuth(s); err == nil && u == "" {
			t.Error("no user and no error")
		}
	})
}
