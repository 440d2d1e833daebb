# `make` lists the targets. PYTHON is the interpreter that an environment is made with.
PYTHON ?= python3
PACKAGE := -e '.[dev,datasets,examples,images,pandas,polars]'
PIP_INSTALL := -m pip install -qq --disable-pip-version-check
BIN := .venv/bin
READY := .venv/.ready
BARE := .venv-wheel
# An environment for each other interpreter, named after it, and for each end of the
# ranges in pyproject.toml.
OTHER := .venv-$(notdir $(PYTHON))
OLDEST := .venv-oldest
NEWEST := .venv-newest
# In two processes, however many cores there are: many tests start processes themselves.
PYTEST = $(BIN)/python -m pytest --numprocesses=2 --dist=worksteal
BENCH := .venv-bench/bin/python
BENCH_READY := .venv-bench/.ready

.PHONY: help venv demo test test-slow test-python test-oldest test-newest test-wheel \
	lint bench format

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Each again whenever what is installed has changed.
$(READY) $(OTHER)/.ready: pyproject.toml constraints.txt
	@echo "==> installing into $(@D) (minutes the first time)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) -c constraints.txt $(PACKAGE)
	@touch $@

$(OLDEST)/.ready: pyproject.toml constraints-oldest.txt
	@echo "==> installing the oldest dependencies into $(@D) (minutes the first time)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) -c constraints-oldest.txt $(PACKAGE)
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

test-python: BIN := $(OTHER)/bin
test-python: $(OTHER)/.ready  ## run the tests on another Python: PYTHON=python3.12
	@$(BIN)/python --version
	@$(PYTEST) $(PYTEST_ARGS)

test-oldest: BIN := $(OLDEST)/bin
test-oldest: $(OLDEST)/.ready  ## run the tests with the oldest dependencies allowed
	@$(PYTEST) $(PYTEST_ARGS)

# Brought up to date each time: what is newest changes without a change here.
test-newest: BIN := $(NEWEST)/bin
test-newest:  ## run the tests with the newest dependencies allowed
	@echo "==> installing the newest dependencies into $(NEWEST) (minutes the first time)"
	@$(PYTHON) -m venv $(NEWEST)
	@$(BIN)/python $(PIP_INSTALL) --upgrade --upgrade-strategy=eager $(PACKAGE)
	@$(PYTEST) $(PYTEST_ARGS)

# As whoever installs it has it: the wheel that the source distribution builds, in an
# environment with nothing but what it asks for, beside a copy of the repository whose
# src/ is gone.
test-wheel: $(READY)  ## try the wheel without extras, development tools and src/
	@rm -rf $(BARE)
	@$(BIN)/python -m build --no-isolation --outdir $(BARE)/dist . > /dev/null
	@mkdir $(BARE)/repository
	@tar -xzf $(BARE)/dist/*.tar.gz -C $(BARE)/repository --strip-components=1
	@rm -r $(BARE)/repository/src
	@echo "==> installing the wheel into $(BARE)"
	@$(PYTHON) -m venv $(BARE)
	@$(BARE)/bin/python $(PIP_INSTALL) -c constraints.txt $(BARE)/dist/*.whl
	@cd $(BARE)/repository && env -u PYTHONPATH ../bin/python tests/helpers/apps/bare_wheel.py

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
