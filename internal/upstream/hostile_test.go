package upstream

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

var hostileTool = &component.Component{Name: "tool", Source: component.Source{Type: component.SourceGitHub, Repo: "o/tool", Tag: "v{version}"}}

// refusedIn asks a hostile server and asserts that the answer is UnknownError, in
// time, and fit to be shown.
func refusedIn(t *testing.T, opts Options, limit time.Duration, want string) {
	t.Helper()
	c := New(opts)
	c.retry = time.Millisecond
	start := time.Now()
	list, err := c.Releases(t.Context(), hostileTool)
	took := time.Since(start)
	var unknown *UnknownError
	if !errors.As(err, &unknown) || !strings.Contains(err.Error(), want) || list != nil {
		t.Fatalf("%d releases, err = %v, want %q", len(list), err, want)
	}
	if len(err.Error()) > 1500 || strings.ContainsAny(err.Error(), "\x1b\n\r") {
		t.Errorf("the error has %d bytes: %.300q", len(err.Error()), err)
	}
	if took > limit {
		t.Errorf("it took %s, at most %s were expected", took, limit)
	}
}

// thrifty runs a test that must not allocate more than it takes to hold the
// longest answer a few times over, in all its tries.
func thrifty(t *testing.T, run func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > 10*maxBody {
		t.Errorf("%d MiB were allocated", grown>>20)
	}
}

// until writes the same bytes until the client goes away.
func until(w http.ResponseWriter, piece string) {
	data := []byte(strings.Repeat(piece, max(1, 32<<10/len(piece))))
	for {
		if _, err := w.Write(data); err != nil {
			return
		}
	}
}

func TestHostileAnswers(t *testing.T) {
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	release := func(more string) http.HandlerFunc {
		return text(`[{"tag_name":"v1.0.0","assets":[{"name":"tool","browser_download_url":"http://192.0.2.1/tool"` + more + `}]}]`)
	}
	to := func(where string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", where)
			w.WriteHeader(http.StatusFound)
		}
	}
	for name, tc := range map[string]struct {
		answer  http.HandlerFunc
		timeout time.Duration
		want    string
	}{
		"a list without end": {answer: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "[")
			until(w, `{"tag_name":"v1.0.0"},`)
		}, want: "longer than 32 MiB"},
		"spaces without end": {answer: func(w http.ResponseWriter, _ *http.Request) { until(w, " ") }, want: "longer than 32 MiB"},
		"a packed bomb":      {answer: gzipped(func(w io.Writer) { _, _ = io.Copy(w, io.LimitReader(zeros{}, 1<<30)) }), want: "longer than 32 MiB"},
		"packed rubbish": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "[]")
		}, want: "read answer: "},
		"another packing": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, "\x0b\x01\x80[]\x03")
		}, want: "makes no sense"},
		"a page":           {answer: text("<!DOCTYPE html>\n<html>\x1b[31msign in"), want: "makes no sense"},
		"a drop at a time": {timeout: 100 * time.Millisecond, answer: drop, want: "no complete answer within 100ms"},
		"shorter than it says": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "[]")
		}, want: "unexpected EOF"},
		"deep":                   {answer: text(strings.Repeat("[", 1<<20)), want: "exceeded max depth"},
		"deep below a key":       {answer: text(`[{"x":` + strings.Repeat(`{"a":`, 1<<18) + "1" + strings.Repeat("}", 1<<18) + "}]"), want: "exceeded max depth"},
		"an object":              {answer: text(`{"message":"Moved"}`), want: "want a JSON list"},
		"null":                   {answer: text("null"), want: "got null"},
		"nothing":                {answer: text(""), want: "makes no sense"},
		"two lists":              {answer: text("[] []"), want: "makes no sense"},
		"a list of numbers":      {answer: text("[1]"), want: "cannot unmarshal number"},
		"a tag that is a number": {answer: text(`[{"tag_name":1}]`), want: "cannot unmarshal number"},
		"a date of no calendar":  {answer: text(`[{"tag_name":"v1.0.0","published_at":"2026-02-31T00:00:00Z"}]`), want: "makes no sense"},
		"a size beyond numbers":  {answer: release(`,"size":99999999999999999999`), want: "cannot unmarshal number"},
		"a negative size":        {answer: release(`,"size":-1`), want: "is negative"},
		"half a digest":          {answer: release(`,"digest":"sha256:abcd"`), want: "sha256"},
		"a weak digest":          {answer: release(`,"digest":"md5:d41d8cd98f00b204e9800998ecf8427e"`), want: "md5"},
		"a file":                 {answer: text(`[{"tag_name":"v1.0.0","assets":[{"name":"tool","browser_download_url":"file:///etc/shadow"}]}]`), want: "is not an http or https URL"},
		"a script":               {answer: text(`[{"tag_name":"v1.0.0","assets":[{"name":"tool","browser_download_url":"javascript:alert(1)"}]}]`), want: "is not an http or https URL"},
		"no address":             {answer: text(`[{"tag_name":"v1.0.0","assets":[{"name":"tool"}]}]`), want: "is not an http or https URL"},
		"a name with a path":     {answer: text(`[{"tag_name":"v1.0.0","assets":[{"name":"../../x","browser_download_url":"http://192.0.2.1/x"}]}]`), want: "is not a file name"},
		"a name with an escape":  {answer: text(`[{"tag_name":"v1.0.0","assets":[{"name":"a\u009b31mb","browser_download_url":"http://192.0.2.1/x"}]}]`), want: "is not a file name"},
		"a name from the right":  {answer: text(`[{"tag_name":"v1.0.0","assets":[{"name":"a\u202egnp","browser_download_url":"http://192.0.2.1/x"}]}]`), want: "is not a file name"},
		"redirects in a circle": {answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String()+"x", http.StatusFound)
		}, want: "more than 5 redirects"},
		"to a file":           {answer: to("file:///etc/passwd"), want: "only http and https are spoken"},
		"to another protocol": {answer: to("ftp://192.0.2.1/x"), want: "only http and https are spoken"},
		"to no address":       {answer: to("http://[::1"), want: "newer releases unknown"},
		"to nowhere":          {answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusFound) }, want: "302"},
		"headers of 11 MiB": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 11<<20))
			_, _ = io.WriteString(w, "[]")
		}, want: "newer releases unknown"},
		"the next page, elsewhere": {answer: linked("<http://192.0.2.1/x>; rel=next"), want: "at another host"},
		"the next page, a file":    {answer: linked("<file:///etc/passwd>; rel=next"), want: "at another host"},
		"the next page, itself":    {answer: linked("<?per_page=100&page=1>; rel=next"), want: "lead back to one already read"},
		"Retry-After of a year":    {answer: limited(http.StatusTooManyRequests, "Retry-After", "31536000"), want: "answers again at"},
		"Retry-After of an age":    {answer: limited(http.StatusTooManyRequests, "Retry-After", "99999999999999999999"), want: "answers again at"},
		"Retry-After, negative":    {answer: limited(http.StatusTooManyRequests, "Retry-After", "-5"), want: "answers again at"},
		"Retry-After, a date gone": {answer: limited(http.StatusServiceUnavailable, "Retry-After", "Mon, 01 Jan 2001 00:00:00 GMT"), want: "503"},
		"a limit reset in 1970":    {answer: limited(http.StatusForbidden, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "1"), want: "rate limit reached"},
		"a limit reset never":      {answer: limited(http.StatusForbidden, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "9223372036854775807"), want: "rate limit reached"},
		"a status of no class":     {answer: limited(799), want: "799"},
		"not modified, unasked":    {answer: limited(http.StatusNotModified), want: "304"},
		"a part":                   {answer: limited(http.StatusPartialContent), want: "206"},
		"no content":               {answer: limited(http.StatusNoContent), want: "204"},
	} {
		t.Run(name, func(t *testing.T) {
			ts := httptest.NewServer(tc.answer)
			defer ts.Close()
			const limit = 20 * time.Second // of a machine that has much else to do
			thrifty(t, func() {
				refusedIn(t, Options{GitHubURL: ts.URL, CacheDir: t.TempDir(), Timeout: tc.timeout}, limit, tc.want)
			})
		})
	}
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// drop sends a byte every 20 ms.
func drop(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for r.Context().Err() == nil {
		<-tick.C
		_, _ = io.WriteString(w, " ")
		_ = http.NewResponseController(w).Flush()
	}
}

func linked(link string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", link)
		_, _ = io.WriteString(w, `[{"tag_name":"v1.0.0"}]`)
	}
}

func limited(status int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
	}
}

// A server may be told of a wait that is longer than it could mean; then it is
// asked again all the same, a day later.
func TestNobodyIsBlockedForEver(t *testing.T) {
	asked := 0
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		limited(http.StatusForbidden, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "99999999999")(w, r)
	}))
	defer ts.Close()
	now := time.Now()
	c := New(Options{GitHubURL: ts.URL, Now: func() time.Time { return now }})
	for _, step := range []struct {
		later time.Duration
		want  int
	}{{0, 1}, {time.Hour, 1}, {25 * time.Hour, 2}} {
		now = now.Add(step.later)
		if _, err := c.Releases(t.Context(), hostileTool); err == nil || asked != step.want {
			t.Fatalf("after %s: asked %d times, want %d; %v", step.later, asked, step.want, err)
		}
	}
}

// raw is a server of whatever bytes come to its mind.
func raw(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var conns []net.Conn
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			conns = append(conns, conn)
			go func() {
				defer conn.Close()
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				answer(conn)
				<-ctx.Done()
			}()
		}
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { cancel(); _ = l.Close(); <-done })
	return "http://" + l.Addr().String()
}

func TestHostileProtocol(t *testing.T) {
	endless := func(piece string) func(net.Conn) {
		return func(conn net.Conn) {
			data := []byte(strings.Repeat(piece, 100))
			for {
				if _, err := conn.Write(data); err != nil {
					return
				}
			}
		}
	}
	for name, answer := range map[string]func(net.Conn){
		"nothing":               func(net.Conn) {},
		"rubbish":               endless("\x00\xff"),
		"1xx without end":       endless("HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"),
		"100 without end":       endless("HTTP/1.1 100 Continue\r\n\r\n"),
		"a header without end":  func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "); endless("x")(c) },
		"headers without end":   func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"); endless("X-Y: z\r\n")(c) },
		"a status line, no end": endless("HTTP/1.1 "),
		"a header at a drop":    func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: y"); slowly(c, "y") },
		"two lengths": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 20\r\n\r\n[]")
		},
		"a negative length": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n[]") },
		"a length of 8 EiB": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n[")
			endless(" ")(c)
		},
		"chunks of 16 EiB": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n[")
			endless(" ")(c)
		},
		"chunks of no size": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			endless("zz\r\n")(c)
		},
		"an extension without end": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
			endless("x")(c)
		},
		"trailers without end": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n")
			endless("X: y\r\n")(c)
		},
		"another protocol": func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n") },
		"switched to another": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
			endless(" ")(c)
		},
		"a line end in a header": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: y\r\n z\x00\r\nContent-Length: 1\r\n\r\n[")
		},
		"a connection that is shut": func(c net.Conn) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refusedIn(t, Options{GitHubURL: raw(t, answer), Timeout: 300 * time.Millisecond}, 20*time.Second, "newer releases unknown")
		})
	}
}

func slowly(conn net.Conn, piece string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		<-tick.C
		if _, err := io.WriteString(conn, piece); err != nil {
			return
		}
	}
}

// certify makes a certificate for a host, signed by itself.
func certify(t *testing.T, host string, from, to time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if ip := net.ParseIP(host); ip != nil {
		about.IPAddresses = []net.IP{ip}
	} else {
		about.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestHostileEncryption(t *testing.T) {
	now := time.Now()
	hour := func(n time.Duration) time.Time { return now.Add(n * time.Hour) }
	for name, tc := range map[string]struct {
		host     string
		from, to time.Time
		unknown  bool // nobody trusts it
		newest   uint16
		http2    bool
		answer   http.HandlerFunc
		want     string
	}{
		"self-signed":     {host: "127.0.0.1", from: hour(-1), to: hour(1), unknown: true, want: "unknown authority"},
		"expired":         {host: "127.0.0.1", from: hour(-2), to: hour(-1), want: "expired"},
		"of the future":   {host: "127.0.0.1", from: hour(1), to: hour(2), want: "not yet valid"},
		"of another host": {host: "example.org", from: hour(-1), to: hour(1), want: "127.0.0.1"},
		"TLS 1.0":         {host: "127.0.0.1", from: hour(-1), to: hour(1), newest: tls.VersionTLS10, want: "protocol version"},
		"TLS 1.1":         {host: "127.0.0.1", from: hour(-1), to: hour(1), newest: tls.VersionTLS11, want: "protocol version"},
		"HTTP/2, resets":  {host: "127.0.0.1", from: hour(-1), to: hour(1), http2: true, answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, want: "stream error"},
		"HTTP/2, cut": {host: "127.0.0.1", from: hour(-1), to: hour(1), http2: true, answer: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "[")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, want: "stream error"},
		"HTTP/2, endless": {host: "127.0.0.1", from: hour(-1), to: hour(1), http2: true, answer: func(w http.ResponseWriter, _ *http.Request) { until(w, " ") }, want: "longer than 32 MiB"},
		"to an open line": {host: "127.0.0.1", from: hour(-1), to: hour(1), answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/x", http.StatusFound)
		}, want: "drops the encryption"},
		"assets on one": {host: "127.0.0.1", from: hour(-1), to: hour(1), answer: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `[{"tag_name":"v1.0.0","assets":[{"name":"tool","browser_download_url":"http://127.0.0.1/tool"}]}]`)
		}, want: "is not encrypted, the list of releases is"},
		"an answer in clear": {host: "", want: "server gave HTTP response to HTTPS client"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.answer == nil {
				tc.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") }
			}
			ts := httptest.NewUnstartedServer(tc.answer)
			defer ts.Close()
			ts.Config.ErrorLog = nil
			transport := http.DefaultTransport.(*http.Transport).Clone()
			defer transport.CloseIdleConnections()
			if tc.host == "" {
				ts.Start()
			} else {
				cert, pool := certify(t, tc.host, tc.from, tc.to)
				ts.TLS, ts.EnableHTTP2 = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: tc.newest}, tc.http2
				ts.StartTLS()
				transport.TLSClientConfig = &tls.Config{RootCAs: pool}
				if tc.unknown {
					transport.TLSClientConfig = nil
				}
			}
			url := "https" + strings.TrimPrefix(strings.TrimPrefix(ts.URL, "https"), "http")
			refusedIn(t, Options{GitHubURL: url, HTTP: &http.Client{Transport: transport}}, 20*time.Second, tc.want)
		})
	}
}

// GitLab's links are what a project's members write: one without encryption is left
// out and said, and spoils nothing else.
func TestLinkWithoutEncryptionIsLeftOut(t *testing.T) {
	ts := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `[{"tag_name":"v1.0.0","assets":{"links":[{"name":"open","url":"http://%[1]s/open"},{"name":"tool","url":"https://%[1]s/tool"}]}}]`, r.Host)
	}))
	defer ts.Close()
	comp := &component.Component{Name: "tool", Source: component.Source{Type: component.SourceGitLab, Repo: "o/tool", Tag: "v{version}"}}
	list, err := New(Options{GitLabURL: ts.URL, HTTP: ts.Client()}).Releases(t.Context(), comp)
	if err != nil || len(list) != 1 || len(list[0].Assets) != 1 || list[0].Assets[0].Name != "tool" {
		t.Fatalf("%+v %v", list, err)
	}
}

// Ten thousand releases on a hundred pages are not all asked for, and versions that
// are none are no releases.
func TestManyAndAbsurdReleases(t *testing.T) {
	pages := 0
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pages++
		w.Header().Set("Link", fmt.Sprintf(`<?page=%d>; rel="next"`, pages+1))
		var list []string
		for i := range 100 {
			list = append(list, fmt.Sprintf(`{"tag_name":"v1.%d.%d"}`, pages, i))
		}
		for _, tag := range []string{
			"v", "vv1.2.3", "v99999999999999999999.0.0", "v1.2.3-", "v1.2.3+" + strings.Repeat("x", 300), "v1.0.0-../../x", "v-1.0.0", "v1.0.0\\u0000",
			"v\\uff11.0.0", "v1.0.0\\n2.0.0", "v 2.0.0", "v0x10.0.0", "latest", "", "v1e9.0.0",
		} {
			list = append(list, `{"tag_name":"`+tag+`"}`)
		}
		_, _ = io.WriteString(w, "["+strings.Join(list, ",")+"]")
	}))
	defer ts.Close()
	list, err := New(Options{GitHubURL: ts.URL}).Releases(t.Context(), hostileTool)
	if err != nil || pages > 10 || len(list) < 900 {
		t.Fatalf("%d releases on %d pages, %v", len(list), pages, err)
	}
	for _, r := range list {
		if !strings.HasPrefix(r.Version.String(), "1.") || len(r.Version.String()) > 30 {
			t.Errorf("version %q of tag %q", r.Version, r.Tag)
		}
	}
}

// Where a key comes twice, the last counts, and no asset gets another's digest
// that way which upstream did not state itself.
func TestKeysThatComeTwice(t *testing.T) {
	got, err := decodeGitHub([]byte(`[{"tag_name":"v1.0.0","tag_name":"v2.0.0","TAG_NAME":"v3.0.0","assets":[{"name":"a","name":"b"}],"assets":[{"name":"c"}]}]`))
	if err != nil || len(got) != 1 || got[0].tag != "v3.0.0" || len(got[0].assets) != 1 || got[0].assets[0].name != "c" {
		t.Fatalf("%+v %v", got, err)
	}
}

func gzipped(write func(io.Writer)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		write(z)
		_ = z.Close()
	}
}
