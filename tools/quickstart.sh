#!/usr/bin/env bash
# The main job on a local repository, as a newcomer would do it: two snapshots, a look, a restore, a proof.
# Everything happens in a new temporary directory, the cache too; it is left for you to look at.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
unset "${!HOLDFAST_@}"

place=$(mktemp -d "${TMPDIR:-/tmp}/holdfast-quickstart.XXXXXX")
cd "$place"
trap 'echo "quickstart: failed; what was made is in $place" >&2' ERR

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

mkdir -p files/photos
echo 'Dear diary, today I made a backup.' >files/diary.txt
seq 1 200000 >files/numbers.txt
head -c 3000000 /dev/urandom >files/photos/cat.jpg

printf 'In %s, with some sample files:\n\n' "$place"
echo '$ export HOLDFAST_REPOSITORY=repository HOLDFAST_KEY_FILE=key'
export HOLDFAST_REPOSITORY=repository HOLDFAST_KEY_FILE=key XDG_CACHE_HOME=$place/cache

run holdfast init --key-file key
run holdfast snapshot files files

printf '\n$ echo "And it took no time." >>files/diary.txt\n'
echo 'And it took no time.' >>files/diary.txt
run holdfast snapshot files files

run holdfast manifests
run holdfast ls latest
run holdfast restore latest --to restored
run diff --recursive files restored/files
run holdfast verify --data

printf '\nquickstart: two snapshots taken, the second restored and found the same, every stored byte verified.\n'
printf 'Look around in %s, and remove it when you are done.\n' "$place"
