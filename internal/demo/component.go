package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Serve plays a small monitoring component: it answers on /-/ready and
// /metrics like a real one. With faulty it is ready at first and ends a moment
// later, as a release with a bug does that shows only under load.
func Serve(ctx context.Context, name, version, listen string, faulty bool) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ready") })
	asked := make(chan struct{}, 1)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE %s_build_info gauge\n%s_build_info{version=%q} 1\n", name, name, version)
		select {
		case asked <- struct{}{}:
		default:
		}
	})
	srv := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.ListenAndServe() }()
	fmt.Printf("level=info msg=\"%s %s listens\" address=%s\n", name, version, listen)
	if faulty {
		select {
		case <-ctx.Done():
		case err := <-ended:
			return err
		case <-asked:
			time.Sleep(300 * time.Millisecond) // the bug it plays takes a moment to show
			fmt.Println("level=error msg=\"corrupted index, giving up\"")
			return errors.New("corrupted index")
		}
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return srv.Shutdown(stop)
	}
}
