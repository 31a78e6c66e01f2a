# Everything runs in .venv, which is made on the first call and kept until
# pyproject.toml or constraints.txt changes.

PYTHON ?= python3
DEMO_CUTS ?= 8
DEMO_OUT ?= runs/demo
TEST_ARGS ?=
FUZZ_ARGS ?=

BIN := .venv/bin
READY := .venv/.stamp
EXTRA_SOURCES := $(wildcard benchmarks experiments examples tests)
TYPED_EXTRAS := $(wildcard benchmarks/*.py experiments/*.py)

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz check bench docs clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: PYTHON=$(PYTHON) DEMO_CUTS=$(DEMO_CUTS) DEMO_OUT=$(DEMO_OUT)" \
	  "TEST_ARGS='$(TEST_ARGS)'"

demo: $(READY) ## What a searched R(t) changes on digits: table, interval, finding; runs in runs/demo
	OMP_WAIT_POLICY=passive $(BIN)/python examples/demo.py --cuts $(DEMO_CUTS) --out $(DEMO_OUT)

test: $(READY) ## Run tests and doctests (KEEPRATE_DATA=folder adds the real-data ones)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal $(TEST_ARGS)

fuzz: $(READY) ## Read 100,000 damaged files (3 minutes; FUZZ_ARGS='--reader npz --seed 1', say)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --jobs 2 $(FUZZ_ARGS)

check: $(READY) ## Lint, formatting, types, import floors, and docs/results.md is current
	$(BIN)/ruff check src $(EXTRA_SOURCES)
	$(BIN)/ruff format --check src $(EXTRA_SOURCES)
	$(BIN)/mypy src $(TYPED_EXTRAS)
	$(BIN)/python -m pytest -q tests/test_architecture.py
	$(BIN)/python -m experiments results --check

docs: .venv/.docs-stamp ## Build the documentation in site/; warnings are errors
	$(BIN)/mkdocs build --quiet --strict

.venv/.docs-stamp: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
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
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[dev]'
	@touch $@
