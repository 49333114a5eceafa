# What a person does with ring1. Every target makes the virtual environment it needs by itself,
# from a plain Python 3.11 or newer, and does nothing twice.
#
#   make demo     boot several guests of different widths together and watch their consoles
#   make test     the whole test suite
#   make check    what CI runs: format, lint, types, tests (and, before them, the guests' build)
#   make quick    the tests without the slow ones
#   make guests   build the guest kernels
#   make clean    remove what was built; the environment too

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ring1-ready
TESTS  ?=

.PHONY: help demo test quick check lint format guests lock clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

demo: guests
	@$(BIN)/ring1 demo

test: guests
	@$(BIN)/python -m pytest -n auto $(TESTS)

quick: guests
	@$(BIN)/python -m pytest -n auto -m "not slow" $(TESTS)

check: lint test

lint: guests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

guests: $(READY)
	@$(BIN)/python -m guests.build

# The build backend comes from the lock file too, so the install needs no second download.
$(READY): pyproject.toml setup.py requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "ring1 needs Python 3.11 or newer; '$(PYTHON)' is not. Name another: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo "making $(VENV) (once; downloads about 150 MB: the engine, the guests' compiler, the test tools)"; \
	  $(PYTHON) -m venv $(VENV) \
	    || { echo "this Python cannot make a virtual environment; on Debian: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Needs pip-tools. The sed removes what pip-tools says about a section it thinks unusual.
lock:
	@{ sed -n '1,/^[^#]/{/^#/p}' requirements.lock; \
	   pip-compile --quiet --extra dev --generate-hashes --allow-unsafe --strip-extras --no-header \
	     --no-emit-options --annotation-style=line --output-file=- pyproject.toml \
	     | sed '/^# The following packages/d;/^$$/d'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info guests/built .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
