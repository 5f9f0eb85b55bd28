package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ReadMatrix reads what MatrixReport.Write has written; nothing is an empty matrix.
func ReadMatrix(path string) (*MatrixReport, error) {
	m := new(MatrixReport)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read matrix: %w", err)
	}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("read matrix %s: %w", path, err)
	}
	return m, nil
}

// Write writes a matrix as JSON. A reader sees the old file or the new one.
func (m *MatrixReport) Write(path string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write matrix: %w", err)
	}
	return replaceFile(path, append(b, '\n'))
}

// WriteMarkdownFile is WriteMarkdown into a file.
func (m *MatrixReport) WriteMarkdownFile(path string) error {
	var b bytes.Buffer
	if err := m.WriteMarkdown(&b); err != nil {
		return err
	}
	return replaceFile(path, b.Bytes())
}

func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write matrix: %w", err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write matrix: %w", err), os.Remove(f.Name()))
	}
	return nil
}
