package servicetest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// modeVar makes a test binary behave as a service instead of running tests.
const modeVar = "OBSERVABILITY_UPGRADE_SERVICETEST"

// Mode is a behaviour of the test service.
type Mode string

// The behaviours. Each prints "ready MODE" once it is set up.
const (
	// Serve ends on SIGTERM, and prints "reloaded" on SIGHUP.
	Serve Mode = "serve"
	// Stubborn ignores SIGTERM.
	Stubborn Mode = "stubborn"
	// Family has a child that ignores SIGTERM, and another in a session of its
	// own; it ends on SIGTERM itself.
	Family Mode = "family"
	// Exit prints a complaint and ends at once with status 3.
	Exit Mode = "exit"
	// Crash ends with status 4 after 2 s, which is late enough to count as started,
	// however long the manager takes to write that down.
	Crash Mode = "crash"
	// Threads listens on an address that it prints first, has many threads, and ends
	// on SIGTERM.
	Threads Mode = "threads"
)

// What Exit prints, and ends with.
const (
	complaint  = "cannot open the configuration"
	exitStatus = 3
)

// Main runs the tests, or the service when the binary was started as one. Call
// it from TestMain.
func Main(m *testing.M) {
	if mode := os.Getenv(modeVar); mode != "" {
		os.Exit(serve(Mode(mode)))
	}
	os.Exit(m.Run())
}

// serve is the service.
func serve(mode Mode) int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	switch mode {
	case Exit:
		fmt.Println(complaint)
		return exitStatus
	case Crash:
		fmt.Println("ready", mode)
		<-time.After(2 * time.Second)
		return 4
	case Family:
		for _, apart := range []bool{false, true} {
			if err := bear(apart); err != nil {
				fmt.Println("child:", err)
				return 1
			}
		}
	case Serve, Stubborn:
	case Threads:
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		go func() { _, _ = l.Accept() }() // its end closes it, nothing before
		fmt.Println(l.Addr())
		for range 40 {
			go func() {
				runtime.LockOSThread()
				for range time.Tick(time.Millisecond) { // so that the end finds it anywhere
				}
			}()
		}
	default:
		fmt.Printf("unknown mode %q\n", mode)
		return 2
	}
	fmt.Println("ready", mode)
	for s := range signals {
		switch {
		case s == syscall.SIGHUP:
			fmt.Println("reloaded")
		case mode != Stubborn:
			fmt.Println("stopping")
			return 0
		}
	}
	return 0
}

// bear starts a stubborn child and returns when it is ready.
func bear(apart bool) error {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), modeVar+"="+string(Stubborn))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: apart}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil || !strings.HasPrefix(string(line[:n]), "ready") {
		return fmt.Errorf("it said %q, %w", line[:n], err)
	}
	fmt.Println("child", cmd.Process.Pid)
	return nil
}
