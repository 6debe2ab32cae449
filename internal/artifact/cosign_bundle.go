package artifact

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
)

// parseBundle reads the signature of a file with what vouches for its key: a
// Sigstore bundle (NAME.sigstore.json, and NAME.bundle of cosign 3), or the
// older form of cosign's --bundle, which is turned into one. The older form does
// not repeat the signed file's SHA-256, so it is given; nil will do where only
// the signature is wanted.
func parseBundle(data, digest []byte) (*bundle.Bundle, error) {
	var form struct {
		MediaType       *string `json:"mediaType"`
		Base64Signature *string `json:"base64Signature"`
	}
	if err := json.Unmarshal(data, &form); err != nil {
		return nil, fmt.Errorf("it is no bundle: %w", err)
	}
	var b *bundle.Bundle
	var err error
	switch {
	case form.MediaType != nil:
		b = &bundle.Bundle{}
		err = b.UnmarshalJSON(data)
	case form.Base64Signature != nil:
		b, err = parseOldBundle(data, digest)
	default:
		return nil, errors.New("it is no bundle: it has neither mediaType (Sigstore) nor base64Signature (cosign before 3)")
	}
	if err != nil {
		return nil, fmt.Errorf("it is no bundle that can be used: %w", err)
	}
	m := b.GetMessageSignature()
	if m == nil {
		return nil, errors.New("the bundle holds an attestation, which says something about a file; wanted is a signature of the file (`cosign sign-blob`)")
	}
	if alg := m.GetMessageDigest().GetAlgorithm(); alg != protocommon.HashAlgorithm_SHA2_256 {
		return nil, fmt.Errorf("the bundle's digest is %s, want SHA2_256", alg)
	}
	if len(m.GetSignature()) == 0 {
		return nil, errors.New("the bundle's signature is empty")
	}
	return b, nil
}

// oldBundle is cosign's LocalSignedPayload, what `cosign sign-blob --bundle`
// wrote before version 3.
type oldBundle struct {
	Base64Signature []byte `json:"base64Signature"`
	Cert            []byte `json:"cert"` // base64 of PEM: a certificate, or the public key
	RekorBundle     *struct {
		SignedEntryTimestamp []byte
		Payload              oldPayload
	} `json:"rekorBundle"`
}

// oldPayload is what Rekor signed: the log's promise to include an entry.
type oldPayload struct {
	Body           []byte `json:"body"`
	IntegratedTime int64  `json:"integratedTime"`
	LogIndex       int64  `json:"logIndex"`
	LogID          string `json:"logID"` // hexadecimal
}

func parseOldBundle(data, digest []byte) (*bundle.Bundle, error) {
	var old oldBundle
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&old); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON document")
	}
	b := &protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle+json;version=0.1",
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest},
			Signature:     old.Base64Signature,
		}},
		VerificationMaterial: &protobundle.VerificationMaterial{},
	}
	block, _ := pem.Decode(old.Cert)
	if block != nil && block.Type == "CERTIFICATE" {
		b.VerificationMaterial.Content = &protobundle.VerificationMaterial_X509CertificateChain{
			X509CertificateChain: &protocommon.X509CertificateChain{Certificates: []*protocommon.X509Certificate{{RawBytes: block.Bytes}}},
		}
	} else {
		b.VerificationMaterial.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}
	}
	if r := old.RekorBundle; r != nil {
		entry, err := r.Payload.entry(r.SignedEntryTimestamp)
		if err != nil {
			return nil, err
		}
		b.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	return bundle.NewBundle(b)
}

func (p *oldPayload) entry(promise []byte) (*protorekor.TransparencyLogEntry, error) {
	var kind struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.Unmarshal(p.Body, &kind); err != nil {
		return nil, fmt.Errorf("the log entry's body: %w", err)
	}
	log, err := hex.DecodeString(p.LogID)
	if err != nil {
		return nil, fmt.Errorf("the log's id: %w", err)
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: p.LogIndex, LogId: &protocommon.LogId{KeyId: log}, IntegratedTime: p.IntegratedTime,
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: promise},
		CanonicalizedBody: p.Body,
	}, nil
}
