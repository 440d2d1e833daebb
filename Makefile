# `make` lists the targets. PYTHON=python3.12 make test picks another Python.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
BARE := .venv-wheel
# In two processes, however many cores there are: many tests start processes themselves.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=worksteal
BENCH := .venv-bench/bin/python
BENCH_READY := .venv-bench/.ready

.PHONY: help venv demo test test-slow test-wheel lint bench format

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Again whenever what is installed has changed.
$(READY): pyproject.toml constraints.txt
	@echo "==> installing into .venv (minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
		-c constraints.txt -e '.[dev,datasets,examples,images,pandas,polars]'
	@touch $@

venv: $(READY)  ## install the package, its extras and the tools into .venv

demo: $(READY)  ## train a classifier of digits through Hydra, and test it
	@echo "==> the digits as a Lance dataset"
	@$(BIN)/python examples/make_digits.py
	@echo "==> python examples/train.py"
	@$(BIN)/python examples/train.py trainer.enable_progress_bar=false

test: $(READY)  ## run the tests
	@$(PYTEST) $(PYTEST_ARGS)

test-slow: $(READY)  ## run the tests that take minutes
	@$(PYTEST) -m slow $(PYTEST_ARGS)

# In an environment of its own with nothing but the wheel and what it asks for, and in a
# folder from which the checkout cannot be imported.
test-wheel: $(READY)  ## try the wheel without extras and development tools
	@rm -rf $(BARE)
	@$(BIN)/python -m build --wheel --no-isolation --outdir $(BARE)/dist . > /dev/null
	@echo "==> installing the wheel into $(BARE)"
	@$(PYTHON) -m venv $(BARE)
	@$(BARE)/bin/python -m pip install -qq --disable-pip-version-check \
		-c constraints.txt $(BARE)/dist/*.whl
	@cp tests/bare_wheel.py $(BARE)/
	@cd $(BARE) && env -u PYTHONPATH bin/python bare_wheel.py

lint: $(READY)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BENCH_READY): pyproject.toml constraints.txt $(wildcard benchmarks/constraints*.txt)
	@echo "==> installing the peers into .venv-bench (minutes the first time)"
	@$(PYTHON) benchmarks/install.py

bench: $(BENCH_READY)  ## measure against the peers; BENCH_ARGS=--quick takes minutes
	@$(BENCH) -m benchmarks $(BENCH_ARGS)

format: $(READY)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
