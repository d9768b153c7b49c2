package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// bill is what the executable is made of, in CycloneDX's form, from the executable's own build information. It has no
// serial number and no time, so that the same executable has the same.
func (p *product) bill() ([]byte, error) {
	whole := cdx.Component{
		BOMRef:  "quicdistd",
		Type:    cdx.ComponentTypeApplication,
		Name:    "quicdistd",
		Version: p.version,
		Licenses: &cdx.Licenses{
			{License: &cdx.License{ID: "Apache-2.0"}},
		},
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: sum(p.content)}},
		Properties: &[]cdx.Property{
			{Name: "cdx:gomod:build:env:GOOS", Value: p.os},
			{Name: "cdx:gomod:build:env:GOARCH", Value: p.arch},
			{Name: "cdx:gomod:build:env:CGO_ENABLED", Value: "0"},
		},
	}
	parts := []cdx.Component{part(&debug.Module{Path: "std", Version: strings.TrimPrefix(p.info.GoVersion, "go")})}
	for _, m := range p.info.Deps {
		parts = append(parts, part(m))
	}
	var refs []string
	for _, c := range parts {
		refs = append(refs, c.BOMRef)
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &whole}
	bom.Components = &parts
	bom.Dependencies = &[]cdx.Dependency{{Ref: whole.BOMRef, Dependencies: &refs}}
	var b bytes.Buffer
	if err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return nil, fmt.Errorf("bill of materials of %s: %w", p.name(), err)
	}
	return b.Bytes(), nil
}

// part is a module, replaced ones as what they are replaced by.
func part(m *debug.Module) cdx.Component {
	if m.Replace != nil {
		m = m.Replace
	}
	purl := "pkg:golang/" + m.Path + "@" + url.PathEscape(m.Version)
	c := cdx.Component{
		BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: purl,
		Scope: cdx.ScopeRequired,
	}
	// go.sum's h1 is the SHA-256 of a list of the module's files and theirs (golang.org/x/mod/sumdb/dirhash).
	if h1, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(h1) == 32 {
		c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(h1)}}
	}
	return c
}
