package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"time"
)

// epoch is the time of every file: any would do, and tar warns of 1970.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// archive is a tar.gz file with one folder.
func (p *product) archive(notices []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	t := tar.NewWriter(z)
	for _, f := range []struct {
		name    string
		mode    int64
		content []byte
	}{
		{p.file(), 0o755, p.content},
		{"LICENSES", 0o644, notices},
	} {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: p.name() + "/" + f.name, Mode: f.mode, Size: int64(len(f.content)),
			ModTime: epoch, Format: tar.FormatUSTAR,
		}
		if err := t.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := t.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
