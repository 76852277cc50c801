package datadir

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Secrets are what a process signs and verifies with.
type Secrets struct {
	// Master signs sessions and everything else of this system's own; 32 bytes.
	Master []byte
	// TURN are the secrets of TURN credentials: the first issues, all verify. Bytes as
	// they stand in the file, so that other programs can use the same text.
	TURN [][]byte
	// Cluster seals what nodes share; nil for a process alone.
	Cluster []byte
}

// SecretOptions say where configured secrets stand; "" is none.
type SecretOptions struct {
	TURNFile    string
	ClusterFile string
	Clustered   bool
}

// Secrets reads the configured secrets and reads or makes the others.
//
// A process alone has a random master secret and a random TURN secret in its
// directory. Nodes of a cluster derive both from the cluster secret (HKDF, RFC
// 5869), so that a cookie or credential of one node is good on every node.
func (d *Dir) Secrets(o SecretOptions) (Secrets, error) {
	var s Secrets
	var err error
	if o.TURNFile != "" {
		if s.TURN, err = ReadSecrets(o.TURNFile); err != nil {
			return Secrets{}, fmt.Errorf("TURN secret file: %w", err)
		}
	}
	switch {
	case o.ClusterFile != "":
		lines, err := ReadSecrets(o.ClusterFile)
		if err != nil {
			return Secrets{}, fmt.Errorf("cluster secret file: %w", err)
		}
		s.Cluster = lines[0]
	case o.Clustered && len(s.TURN) > 0:
		s.Cluster = s.TURN[0]
	case o.Clustered:
		return Secrets{}, errors.New("a node of a cluster needs a secret that all nodes share; make one with: openssl rand -base64 32, and give its file as --cluster-secret-file")
	}
	if s.Cluster != nil {
		if s.Master, err = derive(s.Cluster, "callbox master"); err != nil {
			return Secrets{}, err
		}
		if s.TURN == nil {
			turn, err := derive(s.Cluster, "callbox turn")
			if err != nil {
				return Secrets{}, err
			}
			s.TURN = [][]byte{encode(turn)}
		}
		return s, nil
	}
	master, err := d.readOrMake(SecretFile)
	if err != nil {
		return Secrets{}, err
	}
	if s.Master, err = base64.StdEncoding.DecodeString(string(master[0])); err != nil || len(s.Master) < minSecret {
		return Secrets{}, fmt.Errorf("secret file %s: is damaged; restore it, or remove it to make a new one, which ends all sessions", d.File(SecretFile))
	}
	if s.TURN == nil {
		if s.TURN, err = d.readOrMake(TURNSecretFile); err != nil {
			return Secrets{}, err
		}
	}
	return s, nil
}

func derive(secret []byte, purpose string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("cluster secret: %w", err)
	}
	return key, nil
}

func encode(secret []byte) []byte {
	return base64.StdEncoding.AppendEncode(nil, secret)
}

// readOrMake reads a secret file of the directory, or makes it with one random
// line. It is linked into place, so that of two makers one wins and both agree.
func (d *Dir) readOrMake(name string) ([][]byte, error) {
	path := d.File(name)
	lines, err := readSecrets(path, ownerOnly, "go=")
	if !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return nil, fmt.Errorf("secret file: %w", err)
		}
		return lines, nil
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	f, err := os.CreateTemp(d.path, name+".*.tmp")
	if err != nil {
		return nil, rights(d.path, fmt.Errorf("secret file: %w", err))
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(encode(secret), '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return nil, fmt.Errorf("secret file %s: %w", path, err)
	}
	if err := place(f.Name(), path); err != nil {
		return nil, fmt.Errorf("secret file %s: %w", path, err)
	}
	return readSecrets(path, ownerOnly, "go=")
}

// place puts the finished file where it belongs without replacing another. File
// systems without hard links get a rename: the lock keeps other makers out.
func place(temp, path string) error {
	err := os.Link(temp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return os.Rename(temp, path)
}
