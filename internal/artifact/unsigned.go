package artifact

import "fmt"

// SignatureError reports a signature that does not hold, or is missing where
// one is wanted.
type SignatureError struct {
	Asset  string // what is signed
	Reason string
	Pinned string // the file of the keys it was, or should be, checked against; may be empty

	mismatch bool  // signature and file are both there and do not fit
	err      error // why the keys cannot be read
}

func (e *SignatureError) Error() string {
	return fmt.Sprintf("signature of %s: %s", e.Asset, e.Reason)
}

// Unwrap is why the keys cannot be read; nil for anything else.
func (e *SignatureError) Unwrap() error { return e.err }

// Mismatch reports whether the signature and what it signs are both there, and do
// not fit the keys pinned on this host.
func (e *SignatureError) Mismatch() bool { return e.mismatch }

// UnsignedError refuses a release without a signature, of a component that must
// have one. No choice of a version and no --force changes that.
type UnsignedError struct {
	Component string
	Asset     string // what should be signed
	Reason    string // what is missing
	Before    string // how an earlier version was verified; "" when none was
}

func (e *UnsignedError) Error() string {
	msg := fmt.Sprintf("signature of %s: %s", e.Asset, e.Reason)
	if e.Before != "" {
		return fmt.Sprintf("%s, but %s was verified by a signature before (%s); it never goes back to checksums alone by itself, whatever version is asked for", msg, e.Component, e.Before)
	}
	return msg + ", and a signature is wanted of this component"
}

// unsigned decides about a release without a signature, for which it gives the
// reason: refused where one is wanted by the policy or the definition, or was
// there before.
func (r *Request) unsigned(asset, reason string) error {
	wanted := r.SignatureRequired || r.SignedBefore != "" || r.Component.Signature != nil
	if !wanted || r.AllowUnsigned {
		return nil
	}
	if r.SignatureRequired && r.Component.Signature == nil && r.SignedBefore == "" {
		reason += ", and verification.signature is required"
	}
	return &UnsignedError{Component: r.Component.Name, Asset: asset, Reason: reason, Before: r.SignedBefore}
}
