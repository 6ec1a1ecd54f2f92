# Every target sets up what it needs in .venv and does nothing twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --prefer-binary
WORKERS ?= 2

.PHONY: help demo setup test bench lint clean

help:
	@echo "make demo    watch a toaster learn (installs only what that takes)"
	@echo "make test    install everything and run every test"
	@echo "make setup   install everything, for development"
	@echo "make bench   compare speed and size with PyTorch, scikit-learn and River"
	@echo "make lint    ruff and mypy"
	@echo "make clean   remove what was built; the environment stays (rm -rf .venv removes it)"

demo: $(VENV)/.demo
	$(BIN)/microtune demo toaster

setup: $(VENV)/.setup

test: $(VENV)/.setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 15

bench: $(VENV)/.setup
	$(BIN)/python -m benchmarks

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("microtune needs Python 3.11 or later; try make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): numpy, scikit-learn, a C compiler, emulators (under a minute on a fast line)"
	$(PIP) --editable '.[demo]'
	@touch $@

# PyTorch alone and first: the pinned build is one that only pip finds, and the rest then builds on it.
$(VENV)/.setup: pyproject.toml | $(BIN)/python
	@echo "Installing everything into $(VENV), PyTorch included: some minutes the first time"
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[test,lint]'
	@touch $@ $(VENV)/.demo $(VENV)/.lint

$(VENV)/.lint: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[lint]'
	@touch $@
