#!/usr/bin/env bash
# Run simulated histories (tests/model/history.py): as many as the first argument says, or the one seed of the second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -n ${2:-} ]]; then
    exec .venv/bin/python -P tests/model/simulate.py seed "$2"
fi
exec .venv/bin/python -P tests/model/simulate.py "${1:-1000000}" "$RANDOM$RANDOM"
