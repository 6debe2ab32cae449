// Package yamlfile reads YAML files strictly: one document, no repeated or
// unknown keys, no guessing of types, and every error of a file at once, each
// with file, line, column and key. It imports nothing of this module.
package yamlfile
