# `make demo` and `make test` set everything up by themselves, on a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_STAMP := $(VENV)/.installed-demo
STAMP := $(VENV)/.installed-dev
INSTALL := $(BIN)/python -m pip install --quiet --no-compile
# What pip does file by file, on all cores; some packages carry templates that are no Python.
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
DEMO_ARGS ?=
SERVER_ARGS ?=
TEST_ARGS ?=

.PHONY: demo server test proofs lint types format setup clean

demo: $(DEMO_STAMP)  ## Run the main job end to end on rendered scenes and print where the report is.
	$(BIN)/any2seg demo $(DEMO_ARGS)

server: $(DEMO_STAMP)  ## Run a Prefect server on 127.0.0.1, for `any2seg serve`; Ctrl-C stops it.
	$(BIN)/any2seg server $(SERVER_ARGS)

test: $(STAMP)  ## Run all tests but the proofs.
	$(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder -m "not proof" $(TEST_ARGS)

proofs: $(STAMP)  ## Run the tests that take minutes each: kills of runs, teams' servers, several processes, full-size towers.
	$(PYTEST) -n 2 --dist load -m proof $(TEST_ARGS)

lint: $(STAMP)  ## Check style of everything: packages, examples, benchmarks, tests.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)  ## Check types of the five packages and of the examples (`packages` in pyproject.toml).
	$(BIN)/mypy

format: $(STAMP)  ## Rewrite the sources in the project's style.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(STAMP)  ## Make the virtual environment and install the package with its development tools.

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(DEMO_STAMP): pyproject.toml | $(BIN)/python
	$(INSTALL) -e ".[demo]"
	$(COMPILE)
	touch $(DEMO_STAMP)

$(STAMP): pyproject.toml | $(BIN)/python
	$(INSTALL) -e ".[dev]"
	$(COMPILE)
	touch $(STAMP) $(DEMO_STAMP)

clean:  ## Remove the virtual environment and the default workspace.
	rm -rf $(VENV) workspace
