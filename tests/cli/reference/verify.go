// Verifies an exported access log with the reference implementation of transparency logs, golang.org/x/mod/sumdb, and with
// nothing of Strongroom's: the signature of the checkpoint, every hash of every entry, every tile, an earlier checkpoint, and a
// proof that the server gave.
//
//	go run verify.go KEY DIRECTORY [EARLIER-CHECKPOINT [PROOF LINE]]
//
// Prints the size of the log; ends with 1 and a reason when anything is not as it was signed.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

func main() {
	size, err := verify(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(size)
}

func verify(args []string) (int64, error) {
	key, err := os.ReadFile(args[0])
	if err != nil {
		return 0, err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(key)))
	if err != nil {
		return 0, err
	}
	directory := args[1]
	signed, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	if err != nil {
		return 0, err
	}
	tree, origin, err := open(signed, verifier)
	if err != nil {
		return 0, err
	}
	hashes, err := rebuild(directory, tree.N)
	if err != nil {
		return 0, err
	}
	if err := compareRoot(tree, hashes); err != nil {
		return 0, err
	}
	if err := compareTiles(directory, tree.N, hashes); err != nil {
		return 0, err
	}
	if len(args) > 2 {
		earlier, err := os.ReadFile(args[2])
		if err != nil {
			return 0, err
		}
		then, name, err := open(earlier, verifier)
		if err != nil {
			return 0, err
		}
		if name != origin || then.N > tree.N {
			return 0, fmt.Errorf("the earlier checkpoint is of a longer log, or of another")
		}
		if err := compareRoot(then, hashes); err != nil {
			return 0, err
		}
	}
	if len(args) > 4 {
		return tree.N, checkProof(args[3], args[4], verifier)
	}
	return tree.N, nil
}

// open checks the signature of a checkpoint (c2sp.org/tlog-checkpoint) and reads it.
func open(signed []byte, verifier note.Verifier) (tlog.Tree, string, error) {
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, "", err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 {
		return tlog.Tree{}, "", fmt.Errorf("a checkpoint has three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, "", err
	}
	hash, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: hash}, lines[0], err
}

// rebuild computes all hashes of the tree from the entries alone.
func rebuild(directory string, size int64) (tlog.HashReaderFunc, error) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, 0, len(indexes))
		for _, index := range indexes {
			found = append(found, stored[index])
		}
		return found, nil
	})
	for number := int64(0); number < size; {
		width := size - number
		if width > 1<<height {
			width = 1 << height
		}
		tile := tlog.Tile{H: height, L: -1, N: number >> height, W: int(width)}
		bundle, err := os.ReadFile(place(directory, tile))
		if err != nil {
			return nil, err
		}
		for count := int64(0); count < width; count++ {
			if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
				return nil, fmt.Errorf("%s ends before entry %d", tile.Path(), number)
			}
			length := int(binary.BigEndian.Uint16(bundle))
			hashes, err := tlog.StoredHashes(number, bundle[2:2+length], reader)
			if err != nil {
				return nil, err
			}
			stored = append(stored, hashes...)
			bundle = bundle[2+length:]
			number++
		}
		if len(bundle) != 0 {
			return nil, fmt.Errorf("%s goes on after its last entry", tile.Path())
		}
	}
	return reader, nil
}

func compareRoot(tree tlog.Tree, hashes tlog.HashReader) error {
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil {
		return err
	}
	if root != tree.Hash {
		return fmt.Errorf("the entries have not the root that was signed for %d of them", tree.N)
	}
	return nil
}

func compareTiles(directory string, size int64, hashes tlog.HashReader) error {
	for _, tile := range tiles(size) {
		expected, err := tlog.ReadTileData(tile, hashes)
		if err != nil {
			return err
		}
		found, err := os.ReadFile(place(directory, tile))
		if err != nil {
			return err
		}
		if !bytes.Equal(expected, found) {
			return fmt.Errorf("%s is not the tile of the entries", tile.Path())
		}
	}
	return nil
}

// tiles lists the tiles of a log of this size: the complete ones of each level, and the one that is not.
func tiles(size int64) []tlog.Tile {
	var all []tlog.Tile
	for level := 0; size>>(height*level) > 0; level++ {
		hashes := size >> (height * level)
		for number := int64(0); number < hashes>>height; number++ {
			all = append(all, tlog.Tile{H: height, L: level, N: number, W: 1 << height})
		}
		if rest := hashes & (1<<height - 1); rest > 0 {
			all = append(all, tlog.Tile{H: height, L: level, N: hashes >> height, W: int(rest)})
		}
	}
	return all
}

// place is the file of a tile: as the reference names it, without the height, which c2sp.org/tlog-tiles leaves out.
func place(directory string, tile tlog.Tile) string {
	path := strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1)
	return filepath.Join(directory, strings.Replace(path, "tile/8/", "tile/", 1))
}

// checkProof checks a c2sp.org/tlog-proof of an entry.
func checkProof(proofFile, lineFile string, verifier note.Verifier) error {
	proof, err := os.ReadFile(proofFile)
	if err != nil {
		return err
	}
	line, err := os.ReadFile(lineFile)
	if err != nil {
		return err
	}
	head, signed, found := strings.Cut(string(proof), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return fmt.Errorf("this is no proof")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return err
	}
	var hashes tlog.RecordProof
	for _, text := range lines[2:] {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(raw) != tlog.HashSize {
			return fmt.Errorf("the proof has a hash that is none")
		}
		var hash tlog.Hash
		copy(hash[:], raw)
		hashes = append(hashes, hash)
	}
	tree, _, err := open([]byte(signed), verifier)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash(line))
}
