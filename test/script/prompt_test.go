package script

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/cli"
	"github.com/observability-upgrade/observability-upgrade/internal/demo"
)

// watched is a stream that calls back when it has said a text.
type watched struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	text string
	then func()
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.buf.Write(p)
	if strings.Contains(w.buf.String(), w.text) {
		w.then()
	}
	return n, err
}

// A signal at a question is a no, told in the same words, with its own exit code.
func TestSignalAtTheQuestion(t *testing.T) {
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	box, err := demo.New(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	run := func(ctx context.Context, in io.Reader, stderr io.Writer, args ...string) (int, string) {
		var out bytes.Buffer
		code := cli.Run(ctx, append([]string{program, "--root=" + string(box.Root)}, args...), cli.IO{
			In: in, Out: &out, Err: stderr, Env: func(string) string { return "" }, InTTY: true,
		})
		return code, out.String()
	}
	for _, step := range [][]string{{"restart", "--component=pulse,beacon"}, {"adopt"}, {"apply"}, {"rollback", "--previous"}} {
		if step[0] != "restart" {
			for answer, want := range map[string]int{"no": 0, "signal": 130} {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				silent, hold := io.Pipe() // a person who does not answer
				defer hold.Close()
				var in io.Reader = silent
				stderr := &watched{text: "[y/N]", then: func() {}}
				if answer == "signal" {
					stderr.then = cancel
				} else {
					in = strings.NewReader("n\n")
				}
				code, out := run(ctx, in, stderr, step...)
				if code != want || !strings.HasPrefix(out, "Cancelled: nothing was ") || strings.Contains(out, "context") || strings.Contains(stderr.buf.String(), "error:") {
					t.Errorf("%v, %s: exit code %d, want %d\n%s%s", step, answer, code, want, out, stderr.buf.String())
				}
			}
		}
		if code, out := run(t.Context(), strings.NewReader("y\n"), io.Discard, step...); code != 0 {
			t.Fatalf("%v: exit code %d\n%s", step, code, out)
		}
	}
}
