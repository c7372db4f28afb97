# The commands of this repository. `make setup` needs only Python 3.11+; everything else it installs itself.
PYTHON ?= python3
BIN := .venv/bin
MEMBERS := shared services/ingress services/bulk-runner services/promoter services/status sandbox cli

.DEFAULT_GOAL := help

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## install everything into .venv

.venv/.ready: requirements.lock $(addsuffix /pyproject.toml,$(MEMBERS))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Backstock needs Python 3.11 or newer: run 'make setup PYTHON=python3.12' with a newer one" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@# the build backend looks for its program on PATH
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation $(addprefix -e ./,$(MEMBERS))
	@touch $@

.PHONY: help setup
