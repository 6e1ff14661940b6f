#!/usr/bin/env bash
# Run every check that needs no running program; all of them, then fail if one did.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

failed=()
check() {
    printf '+ %s\n' "$*"
    "$@" || failed+=("$1")
}

shell_scripts() {
    local script
    while IFS= read -r -d '' script; do
        bash -n "$script" || return 1
    done < <(find .ci tools tests benchmarks -type f \( -name '*.sh' -o -path '.ci/run' \) -print0)
}

check ruff check .
check ruff format --check .
check mypy
check lint-imports
check shell_scripts

if ((${#failed[@]})); then
    printf 'lint: failed: %s\n' "${failed[*]}" >&2
    exit 1
fi
echo 'lint: all clean'
