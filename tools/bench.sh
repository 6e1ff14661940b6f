#!/usr/bin/env bash
# Measure every stage (benchmarks/bench_*.py), then the whole (benchmarks/end_to_end*.py), one after the other:
# a benchmark that shares the machine measures the other one; at the end, what they suggest for this machine. What stands
# on the command line goes to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
shopt -s nullglob

.venv/bin/python -m pytest --benchmark-enable --benchmark-only --capture=no "$@" benchmarks/bench_*.py
for script in benchmarks/end_to_end*.py; do
    printf '\n+ %s\n' "$script"
    .venv/bin/python "$script"
done
printf '\n+ benchmarks/suggest.py\n'
.venv/bin/python benchmarks/suggest.py
