#!/usr/bin/env bash
# Measure what holdfast costs as the work grows (benchmarks/scale.py); what stands on the command line goes there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec .venv/bin/python benchmarks/scale.py "$@"
