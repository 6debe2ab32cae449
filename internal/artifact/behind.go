package artifact

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyBehind copies like io.Copy, but what is long is written in a goroutine of its
// own: who unpacks need not wait for who hashes and stores. It returns when that
// goroutine has ended.
func copyBehind(dst io.Writer, src io.Reader) (n int64, err error) {
	buf := make([]byte, chunkSize)
	have, err := fill(buf, src)
	if _, werr := dst.Write(buf[:have]); werr != nil {
		return 0, werr
	}
	n = int64(have)
	if err != nil {
		return n, atEnd(err)
	}
	const spare = 3
	full, free := make(chan []byte, spare), make(chan []byte, spare+1)
	free <- buf
	for range spare {
		free <- make([]byte, chunkSize)
	}
	failed, done := make(chan struct{}), make(chan error, 1)
	go func() {
		var werr error
		for chunk := range full {
			if werr == nil {
				if _, werr = dst.Write(chunk); werr != nil {
					close(failed)
				}
			}
			free <- chunk[:chunkSize]
		}
		done <- werr
	}()
	for err == nil {
		select {
		case buf = <-free:
		case <-failed:
			err = io.EOF // nothing more is of use
			continue
		}
		have, err = fill(buf, src)
		n += int64(have)
		full <- buf[:have]
	}
	close(full)
	return n, errors.Join(<-done, atEnd(err))
}

// fill reads until buf is full, or to the end. Unlike io.ReadFull it passes on what
// the source says of its end: of what is packed, one may be unexpected.
func fill(buf []byte, src io.Reader) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = src.Read(buf[n:])
		n += m
	}
	return n, err
}

func atEnd(err error) error {
	if err == io.EOF { //nolint:errorlint // by identity: one that is wrapped is of a source that broke
		return nil
	}
	return err
}

// writeout has a file that is to be synced in the end go to the disk while it is
// written, so that the sync finds little to do (sync_file_range(2), as dpkg has it).
type writeout struct {
	file          *os.File
	begun, offset int64
}

const writeoutPiece = 8 << 20

// Write implements io.Writer.
func (w *writeout) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.offset += int64(n)
	if piece := w.offset - w.begun; piece >= writeoutPiece {
		// Where that cannot be, the sync does it all.
		_ = unix.SyncFileRange(int(w.file.Fd()), w.begun, piece, unix.SYNC_FILE_RANGE_WRITE)
		w.begun = w.offset
	}
	return n, err
}
