package portshare

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"quic_dist/internal/unixsock"
)

// Where the registrar of a port listens, and how members find it.
//
// Its socket has a random name in Linux's abstract namespace (unix(7)), of which each network namespace has its
// own, as it has its own ports. So no folder can be lost or be another user's, and nobody can have the name
// first. Members find the name in /proc/net/unix. Everybody can choose a name with our prefix, and everybody
// can connect: both ends check the credentials of the other, and of several sockets the one of the same user
// counts.
//
// Earlier versions look for a socket in a folder, so there is one too.

// maxPlaces is how many sockets are tried. Other users of the host can have many with our prefix.
const maxPlaces = 4096

// namePrefix is the beginning of the abstract names of a user's sockets for a port.
func namePrefix(config Config, port uint16) string {
	return fmt.Sprintf("@%s-%d/%d/", strings.TrimPrefix(config.Folder, "."), os.Getuid(), port)
}

// places returns the names of the sockets at which the registrar of a port may listen.
func places(config Config, port uint16) []string {
	found := unixsock.Names(namePrefix(config, port), maxPlaces)
	for _, base := range config.Bases {
		if dir := folderOf(config, base); unixsock.CheckFolder(dir) == nil {
			found = append(found, socketIn(dir, port))
		}
	}
	return found
}

// folderOf returns the user's folder in base.
func folderOf(config Config, base string) string {
	return filepath.Join(base, fmt.Sprintf("%s-%d", config.Folder, os.Getuid()))
}

// socketIn returns the path of a port's socket in the user's folder, one for each network namespace.
func socketIn(dir string, port uint16) string {
	space, err := os.Readlink("/proc/self/ns/net") // net:[4026531840]
	if err != nil {
		space = "net:[0]"
	}
	space = strings.Trim(strings.TrimPrefix(space, "net:"), "[]")
	return filepath.Join(dir, fmt.Sprintf("%d-%s", port, space))
}
