package discovery

import (
	"crypto/x509"
	"fmt"

	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// readCA reads the certificates of a PEM file that nobody else may write: who
// can change it could pretend to be the store.
func readCA(path string) (*x509.CertPool, error) {
	data, err := yamlfile.ReadSecure(path)
	if err != nil {
		return nil, fmt.Errorf("instances.ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("instances.ca: %s holds no certificate; want PEM, from -----BEGIN CERTIFICATE-----; type: openssl x509 -in %s -noout -subject", path, path)
	}
	return pool, nil
}
