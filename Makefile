# Every target builds .venv first, so any of them can be the first command typed in a fresh clone.
# A CPU build of torch is taken if pip's own configuration offers one locally, else from PyTorch's
# CPU index, else from PyPI: a plain `pip install torch` would pull gigabytes of CUDA packages.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch>=2.6,<2.14
CPU_INDEX := https://download.pytorch.org/whl/cpu
UV := $(shell command -v uv 2>/dev/null)

ifdef UV
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
CREATE = uv venv --seed --python $(PYTHON) $(VENV)
PIP = uv pip install --no-sources --quiet --python $(BIN)/python
else
CREATE = $(PYTHON) -m venv $(VENV)
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.PHONY: venv demo test test-slow check lint types docs bench bench-states bench-reconstruction studies clean

venv: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	@test -x $(BIN)/python || $(CREATE)
	@echo "Setting up $(VENV) (one to three minutes, once) ..."
	@$(BIN)/python -c "import torch" 2>/dev/null \
	  || $(PIP) --no-index --no-deps "$(TORCH)" 2>/dev/null \
	  || $(PIP) --no-deps --index-url $(CPU_INDEX) "$(TORCH)" 2>/dev/null \
	  || $(PIP) "$(TORCH)"
	@$(PIP) -e ".[test]"
	@touch $@

$(VENV)/.ready-%: $(VENV)/.ready
	@$(PIP) -e ".[$*]"
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/latentdyn demo

test: $(VENV)/.ready
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow --timeout=3600

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check latentdyn tests benchmarks examples
	$(BIN)/ruff format --check latentdyn tests benchmarks examples

types: $(VENV)/.ready-dev
	$(BIN)/mypy

check: lint types test

docs: $(VENV)/.ready-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/svi_path.py

# against statsmodels, and dynamax, cuthbert and particles where they are installed
bench-states: $(VENV)/.ready
	$(BIN)/python benchmarks/states.py

# against loops over time in plain torch, as published codes write them
bench-reconstruction: $(VENV)/.ready
	$(BIN)/python benchmarks/reconstruction.py

# the numbers of docs/results.md, an hour or two
studies: $(VENV)/.ready
	for study in benchmarks/studies/*.py; do $(BIN)/python $$study || exit 1; done

clean:
	rm -rf $(VENV) docs/_build .pytest_cache .ruff_cache .mypy_cache
