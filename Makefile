# Two commands do everything on a fresh machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.PHONY: demo test check clean

## demo: the whole method on the embedded laboratory; writes demo/report.html (about ten minutes on two cores)
demo: $(READY)
	$(OFFLINE) $(BIN)/sftknow demo --out demo

## test: every test, with coverage
test: $(READY)
	$(OFFLINE) $(BIN)/python -m pytest --cov --cov-report=term

## check: lint, types and the quick tests, for every commit
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(OFFLINE) $(BIN)/python -m pytest -q -m "not slow"

## clean: remove what the other targets made here; the laboratory's cache stays
clean:
	rm -rf $(VENV) demo build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sftknow needs Python 3.11 or newer; run make PYTHON=python3.11")'
	@echo 'Setting up $(VENV): a few minutes, once.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
