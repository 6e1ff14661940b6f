# What a developer calls, one line each; the work is in tools/. Each target first makes .venv what
# pyproject.toml asks for, which takes no time when it already is.

SHELL := /bin/bash
.NOTPARALLEL:
.PHONY: help quickstart test test-full simulate bench lint sanitize setup clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 22

quickstart: setup ## set everything up, then take, restore and verify two snapshots of sample files
	@bash tools/quickstart.sh

test: setup ## set everything up and run the tests, with the time of each folder
	@bash tools/test.sh

test-full: setup sanitize ## the tests with every heavy property in its long form, and the C under sanitizers
	@bash tools/test.sh --full

NUMBER ?= 1000000
simulate: setup ## run NUMBER (a million) simulated histories of writers, prunes and forgets; SEED=… runs one again
	@bash tools/simulate.sh "$(NUMBER)" "$(SEED)"

bench: setup ## measure every stage and the whole, beside the limits of this machine
	@bash tools/bench.sh

bench-peers: setup ## measure holdfast beside restic, borg, kopia and rustic, found or built from source
	@bash tools/bench-peers.sh

bench-scale: setup ## measure what the next snapshot costs as chunks, files, bytes and manifests grow tenfold
	@bash tools/bench-scale.sh

lint: setup ## ruff, mypy --strict, the layers, the shell scripts
	@bash tools/lint.sh

sanitize: setup ## the C under the address and undefined-behaviour sanitizers
	@$(MAKE) -C tests/chunker/native
	@$(MAKE) -C tests/repo_store/native

setup: ## make .venv what pyproject.toml asks for (all other targets do)
	@bash tools/setup.sh

clean: ## remove everything that can be made again, .venv too
	rm -rf .venv build dist *.egg-info .hypothesis .benchmarks .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	rm -f */*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
