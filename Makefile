# `make demo` runs the whole loop, `make test` the tests. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes, each with a Ray of its own; a file's tests stay together. conftest.py orders the files.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test test-all lint clean

setup: $(VENV)/ready
	$(BIN)/genie-ray roms import --from-ale
	@$(BIN)/genie-ray roms import --procgen || echo "warning: set up without procgen (see above); all other games run"

$(VENV)/ready: setup.py constraints.txt
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), f'Python 3.11 or newer is needed, this is {sys.version}'"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[atari,dev]"
	touch $@

demo: setup
	$(BIN)/genie-ray run experiments/demo.yaml

test: setup lint
	$(BIN)/python -m pytest $(PARALLEL) -m "not long"

test-all: setup lint
	$(BIN)/python -m pytest $(PARALLEL)

lint: $(VENV)/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs
