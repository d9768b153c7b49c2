package unixsock

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// procUnix lists the Unix-domain sockets of this network namespace.
const procUnix = "/proc/net/unix"

// Names returns the names in the abstract namespace that begin with prefix, at most limit; none if the system
// does not say. Any user may have chosen such a name.
func Names(prefix string, limit int) (names []string) {
	file, err := os.Open(procUnix)
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan() && len(names) < limit; {
		// proc_net(5): Num RefCount Protocol Flags Type St Inode Path
		fields := strings.Fields(lines.Text())
		if len(fields) == 8 && strings.HasPrefix(fields[7], prefix) {
			names = append(names, fields[7])
		}
	}
	return names
}

// A ForeignError says that the process at the other end is of another user, or of another process namespace.
type ForeignError struct {
	PID int // 0: of another process namespace
	UID int
}

func (e *ForeignError) Error() string {
	if e.UID == os.Getuid() {
		return "it is of another process namespace"
	}
	return fmt.Sprintf("process %d is of user %d, not %d", e.PID, e.UID, os.Getuid())
}

// Peer returns the process at the other end (unix(7), SO_PEERCRED); 0 if that is of another process namespace.
// It returns a [ForeignError] if the process is of another user.
func Peer(conn *net.UnixConn) (pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	if int(cred.Uid) != os.Getuid() {
		return 0, &ForeignError{int(cred.Pid), int(cred.Uid)}
	}
	return int(cred.Pid), nil
}

// VisiblePeer is [Peer] for processes of this process namespace only: in containers that share a network, the
// same user number may be somebody else's.
func VisiblePeer(conn *net.UnixConn) (pid int, err error) {
	pid, err = Peer(conn)
	if err == nil && pid == 0 {
		err = &ForeignError{pid, os.Getuid()}
	}
	return pid, err
}

// Send writes b within timeout, and with it a descriptor of file, unless that is nil. The caller keeps file,
// and may close it.
func Send(conn *net.UnixConn, b []byte, file syscall.Conn, timeout time.Duration) error {
	if err := conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if file == nil {
		_, err := conn.Write(b)
		return err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) {
		_, _, sendErr = conn.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil)
	}); err != nil {
		return err
	}
	return sendErr
}

// ErrTruncated says that a message is longer than the buffer, or came with more than one descriptor.
var ErrTruncated = errors.New("the message is too long, or has too many descriptors")

// Receive reads one message into b, and the descriptor that came with it, if any. The caller owns file. After
// an error no descriptor is left open.
func Receive(conn *net.UnixConn, b []byte) (n int, file *os.File, err error) {
	oob := make([]byte, 128)
	n, oobn, flags, _, err := conn.ReadMsgUnix(b, oob)
	files := descriptors(oob[:oobn])
	if err == nil && (len(files) > 1 || flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0) {
		err = ErrTruncated
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
		return 0, nil, err
	}
	if len(files) > 0 {
		file = files[0]
	}
	return n, file, nil
}

// descriptors returns all descriptors in a control message, so that none is lost.
func descriptors(oob []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files
}

// A FolderError says that a path is not a folder of this user alone.
type FolderError struct{ Path string }

func (e *FolderError) Error() string { return e.Path + " is not a folder of this user alone" }

// CheckFolder returns a [FolderError] unless dir is a folder of this user that no other user may enter.
func CheckFolder(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(owner.Uid) != os.Getuid() ||
		info.Mode().Perm() != 0o700 {
		return &FolderError{dir}
	}
	return nil
}

// MakeFolder makes a folder of this user alone, or checks the one that is there.
func MakeFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return CheckFolder(dir)
}
