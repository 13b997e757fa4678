#!/usr/bin/env bash
# Builds both programs as fully static executables, and checks that they are: deploy/docker/static.sh DIRECTORY [musl|gnu]
#
# The same sources, lock file, Rust and musl give the same bytes in the same directories, as they are in the image (cargo puts
# the directory into its hashes). No path of the builder is in them, the symbols are stripped, and nothing asks for the time.
# Needs rustup, and musl-gcc for the C and assembly of ring and mimalloc (Debian: musl-tools). The Dockerfile runs this very
# script. With gnu they are for the system's own C library, which needs no target to be fetched; such executables find names
# over the system's resolver only where its libraries are, so the image has those for musl.
set -euo pipefail

out=$(realpath -m "${1:?where the programs go}")
libc=${2:-musl}
cd "$(dirname "$0")/../.."

target="$(uname -m)-unknown-linux-$libc"
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
sysroot=$(rustc --print sysroot)
target_dir="${CARGO_TARGET_DIR:-$PWD/target}"

if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then
    rustup target add "$target"
fi

export CARGO_INCREMENTAL=0
# The C compiler would write the time of the build into mimalloc.
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}"
if [ "$libc" = musl ]; then export "CC_${target//-/_}=musl-gcc"; fi
# rustc takes the last mapping that fits, so the innermost directory comes last.
remap="--remap-path-prefix=$sysroot=/rust --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$PWD=/strongroom"
remap+=" --remap-path-prefix=$target_dir=/target"
export RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols $remap"
export CFLAGS="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$target_dir=/target"

cargo build --release --locked --target "$target" --bins

for program in strongroomd strongroom; do
    built="$target_dir/$target/release/$program"
    # Read as a whole first: without readelf this must fail, not pass.
    headers=$(readelf --program-headers --dynamic --wide "$built")
    case "$headers" in
    *INTERP* | *"(NEEDED)"*)
        echo "$program is not static" >&2
        exit 1
        ;;
    *LOAD*) ;;
    *)
        echo "readelf cannot read $program" >&2
        exit 1
        ;;
    esac
    install -D -m 0755 "$built" "$out/$program"
done
sha256sum "$out/strongroomd" "$out/strongroom"
