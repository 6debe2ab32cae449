package discovery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/grpclog"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

const (
	// probeTimeout is how long an endpoint may take to accept a connection and
	// greet.
	probeTimeout = 3 * time.Second
	// maxKeys bounds what is read below a prefix, which may be the wrong one.
	maxKeys = 1000
)

// gRPC prints its own errors on standard error unless told otherwise before its
// first use; ours carry what there is to know.
func init() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
}

// etcd reads all keys that begin with the prefix, from the members that answer.
func (f *finder) etcd(ctx context.Context) ([]component.Instance, error) {
	all := strings.Join(f.in.Endpoints, ", ")
	next := "; type: etcdctl --endpoints=" + shellQuote(strings.Join(f.in.Endpoints, ",")) + " get --prefix " + shellQuote(f.in.Prefix)
	password, err := f.secret("password", f.in.Password)
	if err != nil {
		return nil, err
	}
	if (f.in.Username == "") != (password == "") {
		return nil, errors.New("etcd wants username and password, found one of them in instances")
	}
	config, err := f.etcdTLS()
	if err != nil {
		return nil, err
	}
	up, err := reachable(ctx, f.in.Endpoints, config)
	if err != nil {
		return nil, fmt.Errorf("no etcd endpoint answers: %w%s", err, next)
	}
	resp, err := read(ctx, f.in.Prefix, clientv3.Config{
		Endpoints: up, TLS: config, Username: f.in.Username, Password: password,
		DialTimeout: deadline, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithNoProxy()},
	})
	switch {
	case err == nil:
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return nil, fmt.Errorf("etcd at %s: %w: instances.username or password is wrong", all, err)
	case errors.Is(err, rpctypes.ErrUserEmpty):
		return nil, fmt.Errorf("etcd at %s: %w: it wants instances.username and password", all, err)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return nil, fmt.Errorf("etcd at %s: %w: user %s may not read %s; type: etcdctl role grant-permission --prefix=true ROLE read %s",
			all, err, f.in.Username, f.in.Prefix, shellQuote(f.in.Prefix))
	default:
		return nil, fmt.Errorf("ask etcd at %s: %w%s", all, err, next)
	}
	if len(resp.Kvs) > maxKeys {
		return nil, fmt.Errorf("etcd at %s has more than %d keys below %s; want one key for each instance%s", all, maxKeys, f.in.Prefix, next+" --keys-only")
	}
	out := []component.Instance{}
	keys := map[string]string{}
	for _, kv := range resp.Kvs {
		i, err := f.etcdInstance(string(kv.Key), kv.Value)
		if err != nil {
			return nil, fmt.Errorf("etcd at %s: %w", all, err)
		}
		if other, twice := keys[i.Name]; twice {
			return nil, fmt.Errorf("etcd at %s: the keys %s and %s both have the name %q; give each a name of its own", all, other, kv.Key, i.Name)
		}
		keys[i.Name] = string(kv.Key)
		out = append(out, i)
	}
	return out, nil
}

// etcdTLS is nil for http endpoints. The client takes the first endpoint's
// scheme for all of them, so they must agree: else a password that was meant to
// be encrypted would not be.
func (f *finder) etcdTLS() (*tls.Config, error) {
	schemes := map[string]bool{}
	for _, e := range f.in.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("instances.endpoints: %q is not an http or https URL; want a form such as http://127.0.0.1:2379", e)
		}
		schemes[u.Scheme] = true
	}
	switch {
	case len(schemes) == 0:
		return nil, errors.New("instances.endpoints is empty; want etcd's addresses, such as http://127.0.0.1:2379")
	case len(schemes) > 1:
		return nil, errors.New("instances.endpoints has both http and https; want one of them")
	case schemes["http"] && f.in.CA != "":
		return nil, errors.New("instances.ca is given and the endpoints are http, which proves nothing; write https://")
	case schemes["http"]:
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.in.CA != "" {
		var err error
		if config.RootCAs, err = f.authorities(); err != nil {
			return nil, err
		}
	}
	return config, nil
}

// reachable returns the endpoints at which an etcd seems to be. The client itself would try until the deadline
// and not say why. It is an error, with the reason of each, when there is none.
func reachable(ctx context.Context, endpoints []string, config *tls.Config) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("no connection within %s", probeTimeout))
	defer cancel()
	errs := make([]error, len(endpoints))
	var wg sync.WaitGroup
	for i, e := range endpoints {
		wg.Go(func() {
			if err := probe(ctx, e, config); err != nil {
				errs[i] = fmt.Errorf("%s: %w", e, err)
			}
		})
	}
	wg.Wait()
	var up []string
	var all error
	for i, e := range endpoints {
		switch {
		case errs[i] == nil:
			up = append(up, e)
		case all == nil:
			all = errs[i]
		default:
			all = fmt.Errorf("%w; %w", all, errs[i])
		}
	}
	if len(up) == 0 {
		return nil, all
	}
	return up, nil
}

// probe opens a connection, and with TLS checks the certificate, then exchanges
// the first frames of HTTP/2, on which gRPC is built: what is no etcd is told
// apart at once.
func probe(ctx context.Context, endpoint string, config *tls.Config) error {
	_, host, _, _ := component.SplitAddress(endpoint)
	address := net.JoinHostPort(host, component.PortOf(endpoint))
	var conn net.Conn
	var err error
	if config == nil {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
	} else {
		c := config.Clone()
		c.NextProtos = []string{"h2"}
		conn, err = (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", address)
	}
	if err == nil {
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		err = greet(conn)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		hint := "does it speak TLS? write https://"
		if config != nil {
			hint = "does it speak http only?"
		}
		return fmt.Errorf("it closes the connection (%w); %s", err, hint)
	}
	return err
}

// greet sends the client's preface and empty settings, and wants the server's
// settings (RFC 9113, sections 3.4 and 4.1).
func greet(conn net.Conn) error {
	const (
		settings = 4 // a frame's type, after three bytes of length
		preface  = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	)
	if _, err := io.WriteString(conn, preface); err != nil {
		return err
	}
	var frame [9]byte
	n, err := io.ReadFull(conn, frame[:])
	switch {
	case n == 0:
		return err
	case frame[0] == 0x15 || frame[0] == 0x16: // a TLS record: alert, handshake
		return errors.New("it answers with TLS; write https://")
	case n < len(frame) || frame[3] != settings:
		return fmt.Errorf("it answers %q, which is not HTTP/2; expected etcd's client port, 2379", frame[:n])
	}
	return nil
}

// read returns what is below a prefix, one key more than wanted at most.
func read(ctx context.Context, prefix string, config clientv3.Config) (resp *clientv3.GetResponse, err error) {
	config.Context = ctx
	client, err := clientv3.New(config)
	if err == nil {
		defer client.Close()
		resp, err = client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithLimit(maxKeys+1))
	}
	if err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return resp, err
}

// etcdInstance reads one value. Where it says no exec, the host of its
// health.url decides where it runs.
func (f *finder) etcdInstance(key string, value []byte) (component.Instance, error) {
	i, err := decodeEtcd(key, value)
	if err != nil || len(i.Exec) > 0 || i.Health == nil {
		return i, err
	}
	if _, host, _, _ := component.SplitAddress(i.Health.URL); host != "" && !unspecific(host) && !f.here.named(host) && !f.here.local(host) {
		if i.Exec, err = f.exec(i.Name, host); err != nil {
			return i, fmt.Errorf("key %s: %w", key, err)
		}
	}
	return i, nil
}

// decodeEtcd reads a value strictly: what a definition's list would refuse is
// refused here, and every error names the key.
func decodeEtcd(key string, value []byte) (component.Instance, error) {
	file := "key " + key
	var i component.Instance
	n, err := parseJSON(file, value)
	if err != nil {
		return i, err
	}
	if err := n.Decode(&i); err != nil {
		return i, err
	}
	if i.Name == "" {
		if strings.HasSuffix(key, "/") {
			return i, fmt.Errorf("%s ends with a slash, so it names no instance; put the name behind it, or \"name\" into its value", file)
		}
		i.Name = path.Base(key)
	}
	at := func(name string, err error) error {
		if err != nil {
			err = yamlfile.Error{File: file, Key: name, Message: err.Error()}
		}
		return err
	}
	errs := []error{at("name", checkName(i.Name)), at("service", checkUnit(i.Service))}
	if i.Health != nil {
		errs = append(errs, at("health.url", checkURL(i.Health.URL)), at("health.metrics_url", checkURL(i.Health.MetricsURL)))
	}
	if len(i.Exec) > 0 && i.Exec[0] == "" {
		errs = append(errs, at("exec", errors.New("the command is empty")))
	}
	return i, errors.Join(errs...)
}
