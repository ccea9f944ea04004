// Docker-registry is the registry that the tests pull from: the registry of
// github.com/distribution/distribution with the storage and the authentication that
// tests need, without its drivers for clouds.
//
//	docker-registry serve CONFIG
//	docker-registry htpasswd USER PASSWORD
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"golang.org/x/crypto/bcrypt"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		err = serve(os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "htpasswd":
		err = htpasswd(os.Args[2], os.Args[3])
	default:
		err = fmt.Errorf("usage: docker-registry serve CONFIG | htpasswd USER PASSWORD")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "docker-registry:", err)
		os.Exit(1)
	}
}

func serve(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	conf, err := configuration.Parse(f)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	r, err := registry.NewRegistry(context.Background(), conf)
	if err != nil {
		return err
	}
	return r.ListenAndServe()
}

// htpasswd prints a line for the file that authentication reads.
func htpasswd(user, password string) error {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		return err
	}
	fmt.Printf("%s:%s\n", user, hash)
	return nil
}
