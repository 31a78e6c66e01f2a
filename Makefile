# Everything runs in .venv, which is made on the first call and kept until
# pyproject.toml or constraints.txt changes. LOCK=requirements-ci.txt
# installs the files with the hashes in that list and no others, for CPython 3.11 on Linux x86-64.

PYTHON ?= python3
DEMO_CUTS ?= 8
DEMO_OUT ?= runs/demo
TEST_ARGS ?=
LOCK ?=
FUZZ_ARGS ?=
CHAOS_ARGS ?=

BIN := .venv/bin
READY := .venv/.stamp
EXTRA_SOURCES := $(wildcard benchmarks experiments examples tests)
TYPED_EXTRAS := $(wildcard benchmarks/*.py experiments/*.py)

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz chaos check parcel lowest lock audit bench docs clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: PYTHON=$(PYTHON) DEMO_CUTS=$(DEMO_CUTS) DEMO_OUT=$(DEMO_OUT)" \
	  "TEST_ARGS='$(TEST_ARGS)' LOCK=$(LOCK)"

demo: $(READY) ## What a searched R(t) changes on digits: table, interval, finding; runs in runs/demo
	OMP_WAIT_POLICY=passive $(BIN)/python examples/demo.py --cuts $(DEMO_CUTS) --out $(DEMO_OUT)

test: $(READY) ## Run tests and doctests (KEEPRATE_DATA=folder adds the real-data ones)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal $(TEST_ARGS)

fuzz: $(READY) ## Read 100,000 damaged files (3 minutes; FUZZ_ARGS='--reader npz --seed 1', say)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --jobs 2 $(FUZZ_ARGS)

chaos: $(READY) ## Kill runs and cut their power, start them again, compare (CHAOS_ARGS='--seed 1', say)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --jobs 2 $(CHAOS_ARGS)

check: $(READY) ## Lint, formatting, types, import floors, and docs/results.md is current
	$(BIN)/ruff check src $(EXTRA_SOURCES)
	$(BIN)/ruff format --check src $(EXTRA_SOURCES)
	$(BIN)/mypy src $(TYPED_EXTRAS)
	$(BIN)/python -m pytest -q tests/test_architecture.py
	$(BIN)/python -m experiments results --check
	$(BIN)/python -m tests.audit --if-reachable

parcel: $(READY) ## Build wheel and source distribution, install them elsewhere, use and test them
	$(BIN)/python -m tests.parcel

lowest: $(READY) ## Use the wheel with the lowest versions that pyproject.toml allows
	$(BIN)/python -m tests.lowest

lock: $(READY) ## Write requirements-ci.txt: constraints.txt with the hashes of the files
	$(BIN)/python -m tests.lock

audit: $(READY) ## Ask PyPI whether a vulnerability of a pinned version is known
	$(BIN)/python -m tests.audit

docs: .venv/.docs-stamp ## Build the documentation in site/; warnings are errors
	$(BIN)/mkdocs build --quiet --strict

.venv/.docs-stamp: $(READY)
	@if [ -n "$(LOCK)" ]; then \
	  $(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r $(LOCK); \
	else \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'; \
	fi
	touch $@

bench: $(READY) ## Measure the training engine; prints JSON
	$(BIN)/python -m benchmarks.engine

clean: ## Remove caches and build output (.venv and runs/ stay)
	rm -rf build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests benchmarks experiments examples -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHON) python3.14 python3.13 python3.12 python3.11 none; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	  done; \
	  if [ $$python = none ]; then \
	    echo "keeprate needs Python 3.11 or newer, but $(PYTHON) is" \
	      "$$($(PYTHON) --version 2>&1); give one: make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	  fi; \
	  echo "Making .venv with $$($$python --version)"; \
	  $$python -m venv --clear .venv || exit 1; \
	fi
	@echo "Installing keeprate and its pinned dependencies into .venv (once, some minutes)"
	@export PIP_DISABLE_PIP_VERSION_CHECK=1; \
	if [ -n "$(LOCK)" ]; then \
	  $(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r $(LOCK) && \
	  $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e . && \
	  $(BIN)/python -m pip check; \
	else \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'; \
	fi
	@touch $@
