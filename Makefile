# Every target sets up what it needs: `make demo` and `make test` work on a fresh machine with Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests that need no chain or the devnet's; the machine has a counterpart in tests/integration.
NOT_ON_ANVIL := $(wildcard tests/ledgers/test_devnet_*.py) tests/ledgers/test_artifacts.py tests/contracts/test_machine.py \
	tests/escrow/test_machine.py tests/escrow/test_bugs.py
# By these alone is core's coverage measured: measuring makes whatever runs three times as slow, simulated worlds as well.
MEASURED := tests/core tests/properties tests/rails tests/vectors
# What `make faults` plays; SEED=... plays a run again.
ROUNDS ?= 200
LINKS ?= 5000
BUILD := pyproject.toml hatch_build.py $(wildcard src/penstock/contracts/*.vy)

.DEFAULT_GOAL := help
.PHONY: help demo test chromium network faults fuzz integration verify lint bench gas diagrams lock clean

help: ## say what the targets do
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: $(VENV)/run ## a car buys a real charging session from a pole: devnet, pole and car as processes
	@$(BIN)/penstock demo

test: $(VENV)/dev ## unit, property, vector and end-to-end tests, with the branch coverage of core
	@$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term --cov-fail-under=95 $(MEASURED)
	@$(BIN)/pytest -n 2 --dist worksteal $(MEASURED:%=--ignore=%)

integration: $(VENV)/dev $(VENV)/anvil/ready $(VENV)/api/ready chromium network ## contracts, ledgers and hubs on anvil, a real node: reorgs, restarts, the same gas; the page in a browser
	@$(BIN)/pytest -n 2 --chain anvil tests/integration tests/contracts tests/escrow tests/ledgers tests/hops $(NOT_ON_ANVIL:%=--ignore=%)

chromium: # Debian's, for the pages; where it is missing and we may not install it, their tests are skipped, and say so
	@command -v chromium > /dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq chromium > /dev/null; } || \
		echo "NO BROWSER: pages will not be looked at; as root: apt-get install chromium"

network: # Debian's tool for network namespaces; where it is missing and we may not install it, what needs them fails
	@command -v ip > /dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq iproute2 > /dev/null; } || \
		echo "NO NETWORK NAMESPACES: as root: apt-get install iproute2"

faults: $(VENV)/dev ## real faults on real processes: full disks, 5,000 idle links, and ROUNDS=200 rounds of kill -9
	@LINKS=$(LINKS) $(BIN)/pytest -s tests/faults
	@$(BIN)/python -m tests.faults.rounds --rounds $(ROUNDS) $(SEED:%=--seed %)

verify: $(VENV)/dev $(VENV)/verify/ready ## prove what proofs say about the contract, and that seeded faults break them
	@$(BIN)/python -m tests.verification.prove --halmos $(VENV)/verify/bin/halmos

fuzz: $(VENV)/dev $(VENV)/fuzz/ready ## ten million hostile inputs for every parser; FUZZ="--target NAME --runs N" for less
	@PYTHONPATH=$(VENV)/fuzz $(BIN)/python -m tests.fuzz $(FUZZ)

lint: $(VENV)/dev ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/run $(VENV)/bench/ready ## measure everything into bench/results.json, and renew the tables of docs/benchmarks.md
	@$(BIN)/python -m bench

gas: $(VENV)/dev ## measure both contracts, and renew the figures in bench and the tables of docs/contract.md and docs/escrow.md
	@$(BIN)/python -m bench.gas
	@$(BIN)/python -m bench.escrow_gas

diagrams: | $(BIN)/python ## draw the pictures of ARCHITECTURE.md from their texts
	@$(BIN)/python docs/diagrams/make.py

lock: $(VENV)/dev ## renew the locked requirements, with hashes
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --prerelease=if-necessary-or-explicit requirements/run.in -o requirements/run.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --prerelease=if-necessary-or-explicit requirements/dev.in -o requirements/dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --prerelease=if-necessary-or-explicit requirements/verify.in -o requirements/verify.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --prerelease=if-necessary-or-explicit requirements/fuzz.in -o requirements/fuzz.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --prerelease=if-necessary-or-explicit requirements/bench.in -o requirements/bench.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --prerelease=if-necessary-or-explicit requirements/api.in -o requirements/api.lock

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist src/penstock/contracts/artifacts

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "penstock needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The editable install compiles the contracts, so it is renewed when one of them changes.
$(VENV)/run: requirements/run.lock $(BUILD) | $(BIN)/python
	@echo "setting up $(VENV) (once; about a minute)"
	@echo "  packages, each checked against its hash ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.lock
	@echo "  penstock itself, and its contracts ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev: requirements/dev.lock $(VENV)/run
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@touch $@

# In an environment of its own: its licence (AGPL) and its requirements are not the project's.
$(VENV)/verify/ready: requirements/verify.lock | $(BIN)/python
	@$(PYTHON) -m venv $(VENV)/verify
	@$(VENV)/verify/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/verify.lock
	@touch $@

# In an environment of its own, so that nothing of the project comes to rest on it.
$(VENV)/bench/ready: requirements/bench.lock | $(BIN)/python
	@$(PYTHON) -m venv $(VENV)/bench
	@$(VENV)/bench/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.lock
	@touch $@

# In an environment of its own: it would load itself into every run of the tests.
$(VENV)/api/ready: requirements/api.lock | $(BIN)/python
	@$(PYTHON) -m venv $(VENV)/api
	@$(VENV)/api/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/api.lock
	@touch $@

# Beside the project's own packages, which the targets run with; it needs none of its own. For CPython on Linux.
$(VENV)/fuzz/ready: requirements/fuzz.lock | $(BIN)/python
	@rm -rf $(@D)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --target $(@D) -r requirements/fuzz.lock
	@touch $@

# npm checks the package of each platform that the lock knows against its hash. Others get the exact version that the
# package names; `npm ci` would refuse them, and every lock that was made where an index offers fewer platforms.
$(VENV)/anvil/ready: tests/integration/package.json tests/integration/package-lock.json | $(BIN)/python
	@command -v npm > /dev/null || \
		{ echo "make integration needs npm, to install anvil: install Node.js 20 or newer, and try again"; exit 1; }
	@echo "setting up $(VENV)/anvil (once)"
	@rm -rf $(@D) && mkdir -p $(@D) && cp $^ $(@D)
	@cd $(@D) && npm install --silent --ignore-scripts --no-audit --no-fund
	@ls $(@D)/node_modules/@foundry-rs/anvil-*/bin/anvil* > /dev/null 2>&1 || \
		{ echo "npm offers no anvil for this machine, or one that is not the locked one: $(@D)/package-lock.json"; exit 1; }
	@touch $@
