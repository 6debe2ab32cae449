package cli

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"
)

// output is standard output or standard error. A reader that goes away, as
// `head` does, ends nothing: what is written afterwards is dropped, and the exit
// code still tells how the command ended. Any other error of writing is returned.
// Nothing that is written steers a terminal; each piece of text is written whole.
type output struct {
	to   io.Writer
	gone atomic.Bool
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	if o.gone.Load() {
		return len(p), nil
	}
	_, err := o.to.Write(harmless(p))
	if errors.Is(err, syscall.EPIPE) {
		o.gone.Store(true)
		return len(p), nil
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// unread reports whether nobody reads standard output any more.
func (g *global) unread() bool {
	o, ok := g.Out.(*output)
	return ok && o.gone.Load()
}

// stream is what an output writes to: the progress bars want to know whether
// that is a terminal.
func stream(w io.Writer) io.Writer {
	if o, ok := w.(*output); ok {
		return o.to
	}
	return w
}
