package artifact

import "os"

// Offline reports whether Stage would need no network for a request: the cache
// has the bytes, and nothing that vouches for them has to be asked for.
func (s *Store) Offline(req Request) bool {
	asset, err := PickAsset(req.Component, req.Release, req.OS, req.Arch, req.Root)
	if err != nil {
		return false
	}
	if p, err := s.offline(req, asset); err == nil && p != nil {
		return true
	}
	if s.CacheDir == "" || asset.Digest == "" || req.Component.Checksums != "" || req.Component.Signature != nil || req.SignatureRequired {
		return false
	}
	_, err = os.Stat(s.blob(asset.Digest))
	return err == nil
}
