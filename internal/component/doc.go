// Package component holds the nouns the rest of the program speaks in: a
// component's definition, its versions, releases, assets and digests. It does
// no I/O and imports nothing else of this module.
package component
