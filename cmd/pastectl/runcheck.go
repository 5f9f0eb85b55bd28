package main

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// preloadable says whether the dynamic linker will load our library into a
// program. Behind a script is the program that interprets it.
func preloadable(path string, depth int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
		return fmt.Errorf("%s runs with the privileges of another user (setuid), and libraries cannot be loaded into it: remove that bit and run it as root", path)
	}
	start := make([]byte, 256)
	n, err := io.ReadFull(f, start)
	if err != nil && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("%s: %w", path, err)
	}
	if start = start[:n]; bytes.HasPrefix(start, []byte("#!")) && depth < 4 {
		line, _ := bufio.NewReader(bytes.NewReader(start[2:])).ReadString('\n')
		words := strings.Fields(line)
		if len(words) == 0 {
			return fmt.Errorf("%s is a script and names no interpreter", path)
		}
		interpreter, err := exec.LookPath(words[0])
		if err != nil {
			return fmt.Errorf("%s is a script: %w", path, err)
		}
		return preloadable(interpreter, depth+1)
	}
	return dynamic(path, f)
}

// dynamic says whether an ELF program is linked dynamically, and for this machine.
func dynamic(path string, f *os.File) error {
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	p, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("%s is neither a program nor a script: %w", path, err)
	}
	if p.Machine != self.Machine || p.Class != self.Class {
		return fmt.Errorf("%s is a program for %v (%v), and the library is for %v (%v)", path, p.Machine, p.Class, self.Machine, self.Class)
	}
	for _, s := range p.Progs {
		if s.Type == elf.PT_INTERP {
			return nil
		}
	}
	return fmt.Errorf("%s is statically linked, and libraries cannot be loaded into it: link it dynamically", path)
}
