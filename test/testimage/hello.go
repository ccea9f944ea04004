package testimage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// HelloText is what the hello-world image prints.
const HelloText = `
Hello from Gantry!
This message shows that your installation appears to be working correctly.

To generate this message, Gantry took the following steps:
 1. The docker client contacted the dockerd daemon.
 2. The daemon pulled the "hello-world" image from a registry,
    checking every digest and unpacking its layers as they arrived.
 3. The daemon made a container of that image, and gantry-runtime ran the
    program in it that produces the output you are reading.
 4. The shim wrote that output to the container's log and streamed it to
    the docker client, which sent it to your terminal.

To try something more ambitious, run a shell in a container:
 $ docker run -it busybox sh

`

// HostPlatform is linux on the architecture this program was built for.
func HostPlatform() ocispec.Platform {
	return ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

// HelloELF is a static program of two system calls, write(1, text) and exit(0),
// for linux on amd64 or arm64. It is assembled here so that neither a compiler nor
// a binary in the repository is needed (elf(5); syscall(2)).
func HelloELF(arch, text string) ([]byte, error) {
	const base, ehdr, phdr = 0x400000, 64, 56
	var machine uint16
	var code []byte
	switch arch {
	case "amd64":
		machine, code = 62, helloAMD64(len(text))
	case "arm64":
		machine, code = 183, helloARM64(len(text))
	default:
		return nil, fmt.Errorf("testimage: no hello program for %s", arch)
	}
	var b bytes.Buffer
	put := func(v any) { binary.Write(&b, binary.LittleEndian, v) } //nolint:errcheck // a bytes.Buffer does not fail
	size := uint64(ehdr + phdr + len(code) + len(text))
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	put([]uint16{2, machine}) // ET_EXEC
	put(uint32(1))
	put([]uint64{base + ehdr + phdr, ehdr, 0}) // entry, program headers, no sections
	put(uint32(0))
	put([]uint16{ehdr, phdr, 1, 64, 0, 0})
	put([]uint32{1, 5}) // PT_LOAD, r-x
	put([]uint64{0, base, base, size, size, 0x1000})
	b.Write(code)
	b.WriteString(text)
	return b.Bytes(), nil
}

func helloAMD64(n int) []byte {
	le := func(v int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(v)) }
	var c []byte
	c = append(append(c, 0xb8), le(1)...)                     // mov eax, 1 (write)
	c = append(append(c, 0xbf), le(1)...)                     // mov edi, 1
	c = append(append(c, 0x48, 0x8d, 0x35), le(5+2+5+2+2)...) // lea rsi, [rip+rest]
	c = append(append(c, 0xba), le(n)...)                     // mov edx, n
	c = append(c, 0x0f, 0x05)                                 // syscall
	c = append(append(c, 0xb8), le(60)...)                    // mov eax, 60 (exit)
	c = append(c, 0x31, 0xff, 0x0f, 0x05)                     // xor edi, edi; syscall
	return c
}

func helloARM64(n int) []byte {
	movz := func(reg, imm int) uint32 { return 0xd2800000 | uint32(imm)<<5 | uint32(reg) }
	const words = 8
	ins := []uint32{
		movz(0, 1),
		0x10000000 | uint32(words-1)<<5 | 1, // adr x1, text: words-1 instructions ahead
		movz(2, n), movz(8, 64), 0xd4000001, // write
		movz(0, 0), movz(8, 93), 0xd4000001, // exit
	}
	var b []byte
	for _, w := range ins {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}
