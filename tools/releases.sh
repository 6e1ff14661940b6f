#!/usr/bin/env bash
# Get successive releases of one real source tree, for the dedup rows of benchmarks/peers.py.
#
#     tools/releases.sh FOLDER [VERSION…]
#
# makes FOLDER/<version>/ of each version of Django, as pip finds its source package in the registry it is set up for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=${1:?"usage: tools/releases.sh FOLDER [VERSION…]"}
shift
versions=("$@")
if ((${#versions[@]} == 0)); then versions=(5.2 5.2.1 5.2.2 5.2.3 5.2.4 5.2.5 5.2.6 5.2.7); fi

mkdir -p "$folder"
archives=$(mktemp -d "$folder/archives.XXXXXX")
trap 'rm -rf "$archives"' EXIT
for version in "${versions[@]}"; do
    if [[ -d $folder/$version ]]; then continue; fi
    .venv/bin/pip download --quiet --no-deps --no-binary :all: --no-build-isolation -d "$archives" "Django==$version"
    mkdir "$archives/tree"
    tar -xf "$archives"/*.tar.gz -C "$archives/tree"
    mv "$archives"/tree/* "$folder/$version"
    rm -rf "${archives:?}"/*
done
