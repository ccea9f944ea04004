// Command mkimage builds a test image and pushes it to a registry or writes it as an archive.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gantry/gantry/test/testimage"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	err := testimage.Tool(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, testimage.ErrUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}
