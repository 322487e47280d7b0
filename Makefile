# gprof-lite for its users and developers. `sudo make run` and `sudo make test` need nothing but a Debian 12 or 13.
SHELL := /bin/bash
VENV := .venv/bin
URL ?= http://127.0.0.1:4040
WINDOW ?= 15s

.PHONY: help run test setup setup-test bpf lint format unit integration host browser coverage lock clean

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Asked before anything is set up. The target's own name is in the sentence.
root-%:
	@[ "$$(id -u)" = 0 ] || { echo "make $*: observing the processes of all users needs root; run: sudo make $*" >&2; exit 1; }

run: root-run setup ## Set up, then run server and agent in the foreground; Ctrl-C ends both (WINDOW=15s)
	@exec $(VENV)/gprof-lite run --embedded-server --server $(URL) --window $(WINDOW)

test: root-test setup-test ## Set up, then lint, types, layers and every test this machine can run
	@$(MAKE) --no-print-directory lint
	FAIL_ON_UNLISTED_SKIPS=1 $(VENV)/python -m pytest -q

setup: ## Install what is missing and make .venv (needs root only when Debian packages are missing)
	@packaging/bootstrap run

setup-test: ## The same, with what the tests need
	@packaging/bootstrap test

format: ## Let ruff and clang-format rewrite the code
	$(VENV)/ruff format .
	$(VENV)/ruff check --fix .
	$(MAKE) --no-print-directory -C bpf format

bpf: ## Compile bpf/*.bpf.c for libbpf (needs clang and libbpf-dev; part of the set-up)
	@$(MAKE) --no-print-directory -C bpf

lint: ## Format check, lint, types, layers, shell scripts
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports --no-cache
	shellcheck packaging/bootstrap .ci/run
	$(MAKE) --no-print-directory -C bpf lint

unit: setup-test ## Tests without root, in seconds
	$(VENV)/python -m pytest -q tests/unit

integration: setup-test ## Tests with real children
	$(VENV)/python -m pytest -q tests/integration

host: setup-test ## Tests with root, perf, py-spy
	$(VENV)/python -m pytest -q tests/host

browser: setup-test ## Tests in headless Chromium
	$(VENV)/python -m pytest -q tests/browser

coverage: setup-test ## Which lines the unit and integration tests reach
	$(VENV)/coverage run -m pytest -q tests/unit tests/integration
	$(VENV)/coverage report --skip-covered

lock: ## Make packaging/lock/*.txt anew from setup.cfg
	packaging/lock/make

clean: ## Remove what the set-up made
	rm -rf .venv build dist ./*.egg-info gprof_lite/probes/objects tests/browser/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis
