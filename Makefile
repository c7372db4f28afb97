# The commands of this repository. `make setup` needs only Python 3.11+; everything else it installs itself.
PYTHON ?= python3
BIN := .venv/bin
MEMBERS := shared services/ingress services/bulk-runner services/promoter services/status sandbox cli

.DEFAULT_GOAL := help

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## install everything into .venv

demo: .venv/.ready ## copy a local demo store and prove that every table is equal (ARGS=--keep stays up)
	$(BIN)/backstock demo $(ARGS)

up: .venv/.ready ## run everything on this machine until Ctrl-C
	$(BIN)/backstock up $(ARGS)

# Each worker brings its own Postgres, Redis and sandbox, and waits often: three keep two cores busy.
test: .venv/.ready ## all tests (ARGS="-k name" for some)
	$(BIN)/pytest -n 3 --dist loadgroup $(ARGS)

check: .venv/.ready ## style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: .venv/.ready ## known vulnerabilities of the locked packages
	$(BIN)/python .ci/audit.py

mutations: .venv/.ready ## switch each mechanism off once and see its test fail (ARGS="fencing" for one)
	$(BIN)/python -m mutations $(ARGS)

fuzz: .venv/.ready ## mutated webhooks, calls and bulk files, more of them, from a new seed (EXAMPLES=1000, SEED=0)
	FUZZ_EXAMPLES=$(or $(EXAMPLES),300) timeout 600 $(BIN)/pytest tests/test_fuzz.py tests/test_fuzz_lines.py --timeout 600 --hypothesis-seed=$(or $(SEED),random)

format: .venv/.ready ## put every file into the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

chaos: .venv/.ready ## break everything while stores are loaded, then compare every row (ARGS="--seed 17")
	$(BIN)/python -m chaos $(ARGS)

clean: ## remove local data, logs and caches
	rm -rf .backstock .chaos .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./.venv -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv as well
	rm -rf .venv

.venv/.ready: requirements.lock $(addsuffix /pyproject.toml,$(MEMBERS))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Backstock needs Python 3.11 or newer: run 'make setup PYTHON=python3.12' with a newer one" >&2; exit 1; }
	@echo "Installing into .venv, once (400 MB; half a minute or a few, as your network has it) ..."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@# the build backend looks for its program on PATH
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation $(addprefix -e ./,$(MEMBERS))
	@touch $@

.PHONY: help setup demo up test check audit mutations chaos fuzz format clean distclean
