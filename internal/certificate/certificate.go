// Package certificate reads who may have signed the certificates of the servers
// that this program trusts with more than a probe.
package certificate

import (
	"crypto/x509"
	"fmt"

	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Authorities reads the certificates of a PEM file that nobody else may write: who
// can change it could pretend to be the server. key is the definition's key that
// names the file, for errors.
func Authorities(key, path string) (*x509.CertPool, error) {
	data, err := yamlfile.ReadSecure(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s: %s holds no certificate; want PEM, from -----BEGIN CERTIFICATE-----; type: openssl x509 -in %s -noout -subject", key, path, path)
	}
	return pool, nil
}
