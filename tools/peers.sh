#!/usr/bin/env bash
# Find the other backup programs that benchmarks/peers.py compares with, or build them from source.
#
#     tools/peers.sh [restic] [borg] [kopia] [rustic]
#
# prints one line "name path" for each that is there; one that cannot be built is left out, with the end of what its
# build said. A program on the PATH is taken as it is; else it is built at the version below into
# HOLDFAST_PEERS_DIR (default: the cache of this user) from the registries that go, cargo and pip are set up for.
# A build of rustic takes many minutes. RUSTIC, KOPIA, RESTIC, BORG as variables choose other versions.
set -euo pipefail

readonly RESTIC=${RESTIC:-v0.19.1} KOPIA=${KOPIA:-v0.23.1} RUSTIC=${RUSTIC:-} BORG=${BORG:-1.4.5}
readonly PLACE=${HOLDFAST_PEERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast-peers}

say() { printf 'peers: %s\n' "$*" >&2; }

# Without C; a Go that is too old gets the one that the module asks for.
build_go() { GOBIN=$PLACE/bin CGO_ENABLED=0 GOTOOLCHAIN=auto nice go install "$@"; }

build_restic() { build_go "github.com/restic/restic/cmd/restic@$RESTIC"; }
build_kopia() { build_go -ldflags="-X github.com/kopia/kopia/repo.BuildVersion=$KOPIA" "github.com/kopia/kopia@$KOPIA"; }

build_rustic() {
    local version=()
    if [[ -n $RUSTIC ]]; then version=(--version "$RUSTIC"); fi
    CARGO_TARGET_DIR=$PLACE/target nice cargo install rustic-rs --locked "${version[@]}" --root "$PLACE"
    rm -rf "$PLACE/target"
}

# In Python and C: it needs the headers of OpenSSL, libacl, lz4, zstd and xxhash.
build_borg() {
    python3 -m venv "$PLACE/borg" &&
        nice "$PLACE/borg/bin/pip" install --quiet "borgbackup==$BORG" &&
        ln -sf ../borg/bin/borg "$PLACE/bin/borg"
}

find_or_build() {
    local name=$1 found
    if found=$(PATH="$PATH:$PLACE/bin" command -v "$name"); then
        printf '%s %s\n' "$name" "$found"
        return
    fi
    say "building $name (log: $PLACE/$name.log)"
    if "build_$name" >"$PLACE/$name.log" 2>&1 && [[ -x $PLACE/bin/$name ]]; then
        printf '%s %s\n' "$name" "$PLACE/bin/$name"
    else
        say "$name is left out, it does not build here:"
        tail -n 5 "$PLACE/$name.log" >&2
    fi
}

mkdir -p "$PLACE/bin"
names=("$@")
if ((${#names[@]} == 0)); then names=(restic borg kopia rustic); fi
for name in "${names[@]}"; do
    case $name in
        restic | borg | kopia | rustic) find_or_build "$name" ;;
        *) say "$name: not one of restic, borg, kopia, rustic"; exit 2 ;;
    esac
done
