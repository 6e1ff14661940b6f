#!/usr/bin/env bash
# Run the tests; what stands on the command line goes to pytest, so `tools/test.sh tests/chunker -k phte` works.
# One process for each core, four at most. --full runs the heavy properties in their long form, on the real disk, and
# gives a single test hours instead of minutes before it is taken for stuck. Otherwise files that the tests make
# lie in memory where there is room: some disks take a millisecond for each, and tests make many.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

memory=/dev/shm
memory_kib_min=$((6 * 1024 * 1024))
more=()
full=
for argument in "$@"; do
    if [[ $argument == --full ]]; then
        full=yes
        more=(--override-ini faulthandler_timeout=7200)
    fi
done
if [[ -z $full && -w $memory ]] && (($(df --output=avail "$memory" | tail -n 1) >= memory_kib_min)); then
    scratch=$(mktemp -d "$memory/holdfast-tests.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    chmod 755 "$scratch" # tests that give up root must still reach what is theirs
    export TMPDIR="$scratch"
fi
.venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal "${more[@]}" "$@"
