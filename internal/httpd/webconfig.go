package httpd

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/prometheus/exporter-toolkit/web"

	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// webConfigFormat is where the file is described.
const webConfigFormat = "https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md"

// validate reads the file of TLS and authentication and what it names. Others must
// not be able to write it.
func validate(path string) error {
	if path == "" {
		return nil
	}
	_, err := yamlfile.ReadSecure(path)
	if err == nil {
		err = web.Validate(path)
	}
	if err == nil {
		return nil
	}
	hint := "the format is that of Prometheus' exporters: " + webConfigFormat
	if errors.Is(err, fs.ErrPermission) {
		hint = "a service of its own user reads it as a credential of systemd: docs/status-page.md"
	}
	return &RefusedError{Message: fmt.Sprintf("--web-config=%s: %v", path, err), Hint: hint}
}

// protected tells what is missing in the file for others to be let in: TLS, and
// proof of who they are, by password or by certificate.
func protected(path string) error {
	if path == "" {
		return errors.New("no file of TLS and authentication is given")
	}
	node, err := yamlfile.Load(path)
	if err != nil {
		return err
	}
	tls := node.Get("tls_server_config")
	if !given(tls, "cert") && !given(tls, "cert_file") {
		return fmt.Errorf("%s has no TLS: tls_server_config with cert_file and key_file is missing", path)
	}
	users := node.Get("basic_auth_users")
	byPassword := users != nil && len(users.Pairs) > 0
	byCertificate := text(tls, "client_auth_type") == "RequireAndVerifyClientCert" && (given(tls, "client_ca_file") || given(tls, "client_ca"))
	if !byPassword && !byCertificate {
		return fmt.Errorf("%s has no authentication: want basic_auth_users, or client_auth_type: RequireAndVerifyClientCert with client_ca_file in tls_server_config", path)
	}
	return nil
}

// encrypted reports whether the file gives TLS.
func encrypted(path string) bool {
	if path == "" {
		return false
	}
	node, err := yamlfile.Load(path)
	if err != nil {
		return false
	}
	tls := node.Get("tls_server_config")
	return given(tls, "cert") || given(tls, "cert_file")
}

func text(n *yamlfile.Node, key string) string {
	if v := n.Get(key); v != nil {
		return v.Text
	}
	return ""
}

func given(n *yamlfile.Node, key string) bool { return text(n, key) != "" }

// refusal is the answer to who wants others to look without being asked who they
// are.
func refusal(address, webConfig string, err error) error {
	e := &RefusedError{
		Message: fmt.Sprintf("%s can be reached from other hosts, which takes TLS and authentication: %v", address, err),
		Hint:    "give a file with both: --web-config=FILE (" + webConfigFormat + "); or stay on this host: --listen=127.0.0.1:9099, and `ssh -L 9099:127.0.0.1:9099 HOST` from elsewhere",
	}
	if webConfig != "" {
		e.Hint = "complete the file: " + webConfigFormat
	}
	return e
}
