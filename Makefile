# `make run` sets up and runs the main job; `make test` sets up and passes every test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two processes of one thread each: threads of small networks only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

.PHONY: setup run test quick lint bench build site clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

run: setup
	$(BIN)/advpure attack --defense cm --fix-random
	$(BIN)/advpure cr --eps 8/255

# One run of all, since the quick and the slow tests of a file share what they set up.
test: lint
	$(PYTEST)

quick: setup
	$(PYTEST) -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.readme

build: setup
	$(BIN)/python -m build

site: setup
	$(BIN)/mkdocs build

clean:
	rm -rf $(VENV) build dist *.egg-info
