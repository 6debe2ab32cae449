package modeldisk

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// mountAt tells a process that it is to serve a model disk, and where.
const mountAt = "MODELDISK_MOUNT_AT"

// Disk is a mounted model disk. Its methods may be called from several goroutines.
type Disk struct {
	Dir string // where it is mounted

	mu  sync.Mutex
	cmd *exec.Cmd
	in  io.Closer
	enc *gob.Encoder
	dec *gob.Decoder
}

// Image names a tree that the disk keeps.
type Image int

// Log names a log that the disk keeps, with what was there when it began.
type Log int

// ask is one request to the serving process, and answer what comes back.
type ask struct {
	What  string
	Image Image
	Log   Log
	N     int
	Loss  Loss
	Seed  uint64
	Label string
	Fault Fault
}

type answer struct {
	Err   string
	Errno syscall.Errno
	N     int
	Texts []string
	Sum   string
}

// Start mounts an empty disk on a directory, served by another process of the
// running program, whose main function must call Serve. The error says why that is
// not possible here: no /dev/fuse, or no right to mount.
//
// It must be another process: one that waits for a page of a file that it has
// mapped, as SQLite maps its shared memory, can serve nobody.
func Start(dir string) (*Disk, error) {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("no FUSE here: %w", err)
	}
	f.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), mountAt+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d := &Disk{Dir: dir, cmd: cmd, in: in, enc: gob.NewEncoder(in), dec: gob.NewDecoder(out)}
	if _, err := d.ask(ask{What: "ready"}); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a model disk at %s: %w", dir, err), d.Close())
	}
	return d, nil
}

// Close unmounts the disk and waits for its process to end.
func (d *Disk) Close() error {
	err := errors.Join(d.in.Close(), d.cmd.Wait())
	if err != nil {
		_ = syscall.Unmount(d.Dir, syscall.MNT_DETACH) // where the process died
	}
	return err
}

func (d *Disk) ask(q ask) (answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var a answer
	if err := d.enc.Encode(q); err != nil {
		return a, err
	}
	if err := d.dec.Decode(&a); err != nil {
		return a, err
	}
	switch {
	case a.Errno != 0:
		return a, a.Errno
	case a.Err != "":
		return a, errors.New(a.Err)
	}
	return a, nil
}

// Save keeps what is there now, all of it as if it were synced.
func (d *Disk) Save() (Image, error) {
	a, err := d.ask(ask{What: "save"})
	return Image(a.N), err
}

// Load puts an image in place of what is there, durable, and begins a new log.
func (d *Disk) Load(im Image) error {
	_, err := d.ask(ask{What: "load", Image: im})
	return err
}

// Begin begins a new log: what is there now is durable.
func (d *Disk) Begin() error {
	_, err := d.ask(ask{What: "begin"})
	return err
}

// Keep keeps the log so far, with what was there when it began, and returns what
// its operations are called. Crash refers to it until Drop.
func (d *Disk) Keep() (Log, []string, error) {
	a, err := d.ask(ask{What: "keep"})
	return Log(a.N), a.Texts, err
}

// Drop forgets a log that was kept.
func (d *Disk) Drop(l Log) error {
	_, err := d.ask(ask{What: "drop", Log: l})
	return err
}

// Crash puts in place what is left after a crash that comes after the first n
// operations of a log, durable, and begins a new log. It returns a digest of all
// that is there, and in words what was lost.
func (d *Disk) Crash(l Log, n int, loss Loss, seed uint64) (sum string, lost []string, err error) {
	a, err := d.ask(ask{What: "crash", Log: l, N: n, Loss: loss, Seed: seed})
	return a.Sum, a.Texts, err
}

// CrashTo is Crash into an empty directory of another file system instead: what was
// left can be looked at there, where each call costs less.
func (d *Disk) CrashTo(dir string, l Log, n int, loss Loss, seed uint64) (sum string, lost []string, err error) {
	a, err := d.ask(ask{What: "crash", Log: l, N: n, Loss: loss, Seed: seed, Label: dir})
	return a.Sum, a.Texts, err
}

// Mark notes in the log that something besides the disk happens now, and returns
// how many operations the log has with it.
func (d *Disk) Mark(label string) (int, error) {
	a, err := d.ask(ask{What: "mark", Label: label})
	return a.N, err
}

// Fail has operations fail from now on as f says; they are counted from here.
func (d *Disk) Fail(f Fault) error {
	_, err := d.ask(ask{What: "fail", Fault: f})
	return err
}

// Repair ends what Fail began. It returns how many operations were counted, and
// those that failed.
func (d *Disk) Repair() (count int, failed []string, err error) {
	a, err := d.ask(ask{What: "repair"})
	return a.N, a.Texts, err
}

// SyncFS is syncfs(2) of the disk: the kernel does not pass that call on to a file
// system in user space.
func (d *Disk) SyncFS(string) error {
	_, err := d.ask(ask{What: "syncfs"})
	return err
}

// Sum is a digest of all that is there: names, kinds, modes, owners and content.
func (d *Disk) Sum() (string, error) {
	a, err := d.ask(ask{What: "sum"})
	return a.Sum, err
}
