package artifact

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/redirect"
)

// endless writes until the client goes away.
func endless(w http.ResponseWriter, piece string) {
	data := []byte(strings.Repeat(piece, 32<<10/len(piece)))
	for {
		if _, err := w.Write(data); err != nil {
			return
		}
	}
}

// trickle writes a byte every 10 ms.
func trickle(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for r.Context().Err() == nil {
		<-tick.C
		_, _ = io.WriteString(w, "#")
		_ = http.NewResponseController(w).Flush()
	}
}

// hijacked answers with bytes of its own.
func hijacked(answer func(net.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		answer(conn)
	}
}

// Whatever answers for an asset, its checksums or its signature: an error in
// bounded time and memory, and nothing left behind.
func TestHostileServers(t *testing.T) {
	body := program(100_000)
	sums := sumLine(body, "tool")
	page := "<!DOCTYPE html><html><body>Please sign in</body></html>"
	keys, key := minisignPair(t)
	write := func(b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
	}
	for name, tc := range map[string]struct {
		tool, sums, sig http.HandlerFunc // as it should be where nil
		size            int64            // that the list states of the tool; 0: none
		options         Options
		want            string
	}{
		"a file without end":              {tool: func(w http.ResponseWriter, _ *http.Request) { endless(w, "#") }, options: Options{MaxDownload: 8 << 20}, want: "tool is too big"},
		"a file without end, of a length": {tool: func(w http.ResponseWriter, _ *http.Request) { endless(w, "#") }, size: int64(len(body)), want: "expected 100056 bytes, got"},
		"checksums without end":           {sums: func(w http.ResponseWriter, _ *http.Request) { endless(w, "# comment\n") }, want: "sums is too big: 4194305 bytes"},
		"a signature without end":         {sig: func(w http.ResponseWriter, _ *http.Request) { endless(w, "x") }, want: "sig is too big: 4194305 bytes"},
		"a file by drops":                 {tool: trickle, want: "deadline exceeded"},
		"checksums by drops":              {sums: trickle, want: "deadline exceeded"},
		"a signature by drops":            {sig: trickle, want: "deadline exceeded"},
		"no answer":                       {tool: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, options: Options{Stall: 20 * time.Millisecond}, want: "brought nothing for too long (tried 4 times)"},
		"no answer for checksums":         {sums: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, options: Options{Stall: 20 * time.Millisecond}, want: "brought nothing for too long"},
		"headers without end": {tool: hijacked(func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, strings.Repeat("X-Y: z\r\n", 4000)); err != nil {
					return
				}
			}
		}), want: "(tried 4 times)"},
		"1xx without end": {tool: hijacked(func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n", 1000)); err != nil {
					return
				}
			}
		}), want: "(tried 4 times)"},
		"a length that is longer": {tool: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)+1))
			_, _ = w.Write(body)
		}, want: "tool"},
		"a length that is shorter": {tool: hijacked(func(c net.Conn) {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", len(body)-1)
			_, _ = c.Write(body)
		}), want: "checksum of tool does not match"},
		"a byte a connection": {tool: byteByByte(body), size: int64(len(body)), want: "deadline exceeded"},
		"packed on the way":   {tool: packedOnTheWay(body), want: "checksum of tool does not match"},
		"a page":              {tool: write([]byte(page)), want: "an HTML page"},
		"a page of an unknown type": {tool: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/gzip")
			_, _ = io.WriteString(w, page)
		}, want: "an HTML page"},
		"checksums are a page":         {sums: write([]byte(page)), want: "an HTML page"},
		"a signature is a page":        {sig: write([]byte(page)), want: "an HTML page"},
		"checksums of another release": {sums: write(sumLine([]byte("older"), "tool-1.1.0")), want: "sums"},
		"two sums of one name":         {sums: write(append(bytes.Clone(sums), sumLine([]byte("x"), "tool")...)), want: "sums"},
		"checksums of one long line":   {sums: write(bytes.Repeat([]byte("a"), 3<<20)), want: "sums"},
		"a part that nobody asked for": {tool: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-9/10")
			w.WriteHeader(http.StatusPartialContent)
		}, want: "answered 206, expected 200"},
		"redirects in a circle": {tool: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String()+"x", http.StatusFound)
		}, want: "more than 10 redirects"},
		"redirects to a file": {tool: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		}, want: "only http and https are spoken"},
		"a year to wait": {tool: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "31536000")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, want: "come back in 8760h0m0s"},
		"an age to wait": {tool: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "9223372036854775807")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, want: "tool"},
		"a limit used up": {tool: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-RateLimit-Remaining", "0")
			w.WriteHeader(http.StatusForbidden)
		}, want: "the rate limit is used up"},
	} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			for path, h := range map[string]struct{ given, good http.HandlerFunc }{
				"/tool": {tc.tool, write(body)}, "/sums": {tc.sums, write(sums)}, "/sig": {tc.sig, write(prehash(t, key, sums))},
			} {
				if h.given == nil {
					h.given = h.good
				}
				mux.HandleFunc(path, h.given)
				mux.HandleFunc(path+"x", h.given) // where circles lead
				mux.HandleFunc(path+"/", h.given)
			}
			mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, r.URL.String()+"x", http.StatusFound)
			})
			ts := httptest.NewServer(mux)
			defer ts.Close()
			if tc.options.Stall == 0 {
				tc.options.Stall = 10 * time.Second
			}
			transport := http.DefaultTransport.(*http.Transport).Clone()
			transport.MaxResponseHeaderBytes = 1 << 20 // as the stack's
			defer transport.CloseIdleConnections()
			tc.options.HTTP = &http.Client{Transport: transport}
			tc.options.RetryBase, tc.options.CacheDir = time.Millisecond, t.TempDir()
			req := Request{
				Component: &component.Component{
					Name: "tool", Asset: "tool", Checksums: "sums", Binaries: []component.Binary{{Name: "tool"}},
					Signature: &component.Signature{Type: "minisign", Asset: "sig", Keyring: keys},
				},
				Release: component.Release{Version: component.MustParseVersion("1.2.0"), Tag: "v1.2.0", Assets: []component.Asset{
					{Name: "tool", URL: ts.URL + "/tool", Size: tc.size}, {Name: "sums", URL: ts.URL + "/sums"}, {Name: "sig", URL: ts.URL + "/sig"},
				}},
				OS: "linux", Arch: "amd64", Staging: filepath.Join(t.TempDir(), "staging"), ChecksumRequired: true,
			}
			limit := 20 * time.Second // of a machine that has much else to do
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			if strings.Contains(tc.want, "deadline") { // the policy's timeouts.download
				ctx, cancel = context.WithTimeout(t.Context(), 400*time.Millisecond)
			}
			defer cancel()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := New(tc.options).Stage(ctx, req)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			switch {
			case err == nil || !strings.Contains(err.Error(), tc.want):
				t.Fatalf("err = %v, want %q", err, tc.want)
			case len(err.Error()) > 1500:
				t.Errorf("the error has %d bytes", len(err.Error()))
			case took > limit:
				t.Errorf("it took %s", took)
			}
			if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > 128<<20 {
				t.Errorf("%d MiB were allocated", grown>>20)
			}
			for _, pattern := range []string{filepath.Join(req.Staging, "*", "*"), filepath.Join(tc.options.CacheDir, "artifacts", "*", "*"), filepath.Join(tc.options.CacheDir, "partial", "unnamed-*")} {
				if left, _ := filepath.Glob(pattern); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			}
		})
	}
}

// byteByByte gives one byte a connection, which is progress of a kind.
func byteByByte(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		at := 0
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)-at))
		if at > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(body)-1, len(body)))
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(body[at : at+1])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func packedOnTheWay(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(body)
		_ = z.Close()
	}
}

// A download that is led from elsewhere to a service of this host is not followed
// there: not even the connection is made.
func TestDownloadIsNotLedToThisHost(t *testing.T) {
	asked := 0
	here := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer here.Close()
	elsewhere := httptest.NewServer(http.RedirectHandler(here.URL+"/secret", http.StatusFound))
	defer elsewhere.Close()
	// A host of another place, by a proxy as every transport may have one.
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "192.0.2.1:80" {
			address = strings.TrimPrefix(elsewhere.URL, "http://")
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	_, err := fetchBare(t, Options{HTTP: client}, "http://192.0.2.1/tool", program(10), nil)
	if !errors.As(err, new(*redirect.RefusedError)) || asked > 0 || strings.Contains(err.Error(), "tried") {
		t.Fatalf("asked %d times, err = %v", asked, err)
	}
}
