# Clearance. `make` lists what there is; `make run` and `make test` need nothing done before.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
SDK := $(shell find agents/sdk -name '*.py' -o -name pyproject.toml 2>/dev/null | grep -v /build/)
# Touched when an installation is complete: a second run finds them newer and does nothing.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
.PHONY: help run test test-cluster check bench lock clean screenshots manifests cluster

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(INSTALLED) ## run the whole of Clearance on this machine, with the example (EXAMPLE=0: without)
	@exec $(PY) manage.py tower

test: $(INSTALLED_DEV) ## run all tests, then the behaviour tests again on PostgreSQL and Redis (ARGS=…)
	@exec $(PY) -m tests.run $(ARGS)

test-cluster: $(INSTALLED_DEV) ## build a real Kubernetes control plane once, and test against it (ARGS=…)
	@bash .ci/control-plane
	@exec $(PY) -m pytest -q tests/cluster $(ARGS)

cluster: $(INSTALLED_DEV) ## a Kubernetes to try it on: control plane, a node of real processes, Clearance
	@bash .ci/control-plane
	@exec $(PY) -m tests.cluster.stage "$$(mktemp -d)" EXAMPLE=1 $(ARGS)

check: $(INSTALLED_DEV) ## format, lint, types, import rule, templates, Django's checks, migrations
	@bash .ci/check

bench: $(INSTALLED_DEV) ## measure, as ratios where there is a peer or a limit (ARGS=name …)
	@exec $(PY) -m bench $(ARGS)

manifests: ## render deploy/manifests from the Helm chart
	@bash deploy/manifests/render

screenshots: $(INSTALLED_DEV) ## take the pictures of docs/screenshots again
	@exec $(PY) -m tests.browser.screenshots

lock: ## compile requirements*.in into requirements*.txt with hashes
	@python3 -m venv $(VENV)-lock && $(VENV)-lock/bin/python -m pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11 requirements.in -o requirements.txt
	$(VENV)-lock/bin/uv pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11 requirements-dev.in -o requirements-dev.txt

clean: ## remove what was installed and cached (never .clearance, your state)
	rm -rf $(VENV) $(VENV)-lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@bash .ci/venv $(VENV)

$(INSTALLED): requirements.txt $(SDK) | $(VENV)/.made
	@echo "Installing packages (the first time this takes a minute or two) …"
	@$(PIP) install --quiet --require-hashes --only-binary :all: -r requirements.txt
	@if [ -f agents/sdk/pyproject.toml ]; then $(PIP) install --quiet --no-deps --force-reinstall ./agents/sdk; fi
	@rm -rf agents/sdk/build agents/sdk/*.egg-info # what building it leaves in the tree
	@printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s/bin/python" -m console.cli "$$@"\n' "$(CURDIR)" "$(CURDIR)/$(VENV)" > $(VENV)/bin/clearance
	@chmod +x $(VENV)/bin/clearance
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	@echo "Installing what the tests and checks need …"
	@$(PIP) install --quiet --require-hashes -r requirements-dev.txt
	@touch $@
