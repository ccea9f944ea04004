package config

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// IndexServer is the key under which credentials of Docker Hub are kept.
const IndexServer = "https://index.docker.io/v1/"

const tokenUser = "<token>"

// ErrNoCredentials says that nothing is stored for a server.
var ErrNoCredentials = errors.New("credentials not found in native keychain")

// Hostname strips scheme and path of a registry address, as older files carry them.
func Hostname(addr string) string {
	s := strings.TrimPrefix(strings.TrimPrefix(addr, "https://"), "http://")
	s, _, _ = strings.Cut(s, "/")
	return s
}

// ServerKey is the key credentials of the registry host are stored under.
func ServerKey(host string) string {
	switch host {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io":
		return IndexServer
	}
	return host
}

// helper is the credential helper in charge of server, "" for config.json itself.
func (f *File) helper(server string) string {
	if h, ok := f.CredHelpers[server]; ok {
		return h
	}
	return f.CredsStore
}

// Helper names the credential helper in charge of server; empty when credentials are
// kept in config.json itself, unencrypted.
func (f *File) Helper(server string) string { return f.helper(server) }

// Credentials answers what is stored for exactly this server. Nothing stored is the zero
// Auth and no error; what cannot be parsed or asked is no credential and an error.
func (f *File) Credentials(ctx context.Context, server string) (Auth, error) {
	if h := f.helper(server); h != "" {
		return helperGet(ctx, h, server)
	}
	a, ok := f.Auths[server]
	if !ok {
		for key, v := range f.Auths {
			if Hostname(key) == server {
				a, ok = v, true
				break
			}
		}
	}
	if !ok {
		return Auth{}, nil
	}
	if a.Auth == "" {
		return a, nil
	}
	user, pass, err := decodeAuth(a.Auth)
	if err != nil {
		return Auth{}, fmt.Errorf("credentials of %s in %s: %w", server, f.path, err)
	}
	a.Username, a.Password, a.Auth = user, pass, ""
	return a, nil
}

func decodeAuth(s string) (user, pass string, err error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", "", errors.New("invalid base64 in auth")
	}
	user, pass, ok := strings.Cut(string(b), ":")
	if !ok || user == "" {
		return "", "", errors.New("invalid auth configuration file")
	}
	return user, strings.Trim(pass, "\x00"), nil
}

// Store keeps a for server, in the helper in charge or in config.json.
func (f *File) Store(ctx context.Context, server string, a Auth) error {
	if h := f.helper(server); h != "" {
		user, secret := a.Username, a.Password
		if a.IdentityToken != "" {
			user, secret = tokenUser, a.IdentityToken
		}
		in, err := json.Marshal(map[string]string{"ServerURL": server, "Username": user, "Secret": secret})
		if err != nil {
			return err
		}
		if _, err := runHelper(ctx, h, "store", in); err != nil {
			return err
		}
		// The entry without secret tells which servers are logged in.
		if f.Auths == nil {
			f.Auths = map[string]Auth{}
		}
		f.Auths[server] = Auth{}
		return f.Save()
	}
	if f.Auths == nil {
		f.Auths = map[string]Auth{}
	}
	stored := Auth{IdentityToken: a.IdentityToken}
	if a.Username != "" {
		pass := a.Password
		if a.IdentityToken != "" {
			pass = ""
		}
		stored.Auth = base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + pass))
	}
	f.Auths[server] = stored
	return f.Save()
}

// Erase forgets what is stored for server and says whether there was anything.
func (f *File) Erase(ctx context.Context, server string) (found bool, err error) {
	_, found = f.Auths[server]
	if h := f.helper(server); h != "" {
		if _, err := runHelper(ctx, h, "erase", []byte(server)); err != nil && !errors.Is(err, ErrNoCredentials) {
			return found, err
		}
	}
	if !found {
		return false, nil
	}
	delete(f.Auths, server)
	return true, f.Save()
}

func helperGet(ctx context.Context, helper, server string) (Auth, error) {
	out, err := runHelper(ctx, helper, "get", []byte(server))
	if errors.Is(err, ErrNoCredentials) {
		return Auth{}, nil
	}
	if err != nil {
		return Auth{}, err
	}
	var c struct{ ServerURL, Username, Secret string }
	if err := json.Unmarshal(out, &c); err != nil {
		return Auth{}, fmt.Errorf("credential helper %s: %w", helper, err)
	}
	if c.Username == tokenUser {
		return Auth{IdentityToken: c.Secret}, nil
	}
	return Auth{Username: c.Username, Password: c.Secret}, nil
}

// runHelper runs docker-credential-<helper>. The name comes from the user's own file, but
// is refused a path all the same.
func runHelper(ctx context.Context, helper, action string, in []byte) ([]byte, error) {
	if strings.ContainsAny(helper, "/\\") {
		return nil, fmt.Errorf("invalid credential helper name %q", helper)
	}
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, action)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	msg := strings.TrimSpace(string(out))
	if strings.Contains(msg, ErrNoCredentials.Error()) {
		return nil, ErrNoCredentials
	}
	return nil, fmt.Errorf("error getting credentials - err: %w, out: `%s`", err, msg)
}

// EncodeAuth is the X-Registry-Auth form of a for server; that of an empty object when a
// holds nothing.
func EncodeAuth(server string, a Auth) string {
	if a == (Auth{}) {
		return "e30="
	}
	b, err := json.Marshal(registry.AuthConfig{
		Username: a.Username, Password: a.Password, ServerAddress: server,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	})
	if err != nil {
		return ""
	}
	return base64.URLEncoding.EncodeToString(b)
}
