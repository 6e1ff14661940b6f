#!/usr/bin/env bash
# Measure holdfast beside the other backup programs (benchmarks/peers.py), which tools/peers.sh finds or builds. What stands
# on the command line goes to peers.py; --quick takes a hundredth of the data and no releases.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

releases=()
if [[ " $* " != *" --quick "* && " $* " != *" --from "* ]]; then
    place=${HOLDFAST_PEERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast-peers}/releases
    if bash tools/releases.sh "$place"; then
        releases=(--releases "$place")
    else
        echo 'bench-peers: without the rows of successive releases, which cannot be had' >&2
    fi
fi
exec .venv/bin/python benchmarks/peers.py "${releases[@]}" "$@"
