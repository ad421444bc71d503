# Needs Python 3.11 to 3.13 and make. Everything else comes from the package index and stays in .venv and ~/.cache/driftline.
VENV := .venv
BIN := $(VENV)/bin
LOCKS := .locks
# Side by side, first the tests that need no broker, then those that have one of each process. With ARGS one after the other.
# Those without go file by file, for some files count what all of their tests have seen; few but long tests come first. Those
# with a broker go one by one (the order: tests/integration/conftest.py).
PURE_TESTS := tests/simulation tests/laws tests/oracle tests/unit
SIDE_BY_SIDE := -n auto --maxprocesses 4
# Much of their time they wait for brokers and clocks: three are quicker on two cores, too.
SIDE_BY_SIDE_WITH_BROKERS := -n 3
PYTHON ?= $(firstword $(shell for name in python3.11 python3.12 python3.13 python3; do command -v $$name; done))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The package itself: its dependencies are in the lock already, its build backend too, so nothing unhashed is fetched.
INSTALL_SELF := $(PIP) install --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.PHONY: help env demo test kernels faults chaos-ci lint format real throughput detection clean simulate

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime  ## a real Kafka, a simulated model with a scripted drift, a worker: the first alert within a minute
	@$(BIN)/driftline demo $(or $(ARGS),--duration 90)

test: $(VENV)/.dev  ## everything that must hold before a commit lands: lint, types, all tests
	@$(MAKE) --no-print-directory -j2 lint $(if $(ARGS),,kernels)
	@$(BIN)/python -m pytest $(or $(ARGS),$(PURE_TESTS) $(SIDE_BY_SIDE) --dist loadfile --no-loadscope-reorder)
	@$(if $(ARGS),,$(BIN)/python -m pytest tests/integration $(SIDE_BY_SIDE_WITH_BROKERS) --dist load --maxschedchunk 1)

kernels: $(VENV)/.dev  # once and beside the linters, not in every process of pytest and in workers that tests wait for
	@$(BIN)/python tests/compile_kernels.py

faults: $(VENV)/.dev  ## whole processes and brokers made to fail, one fault at a time
	@$(BIN)/python -m pytest tests/faults $(ARGS)

chaos-ci: $(VENV)/.dev  ## three seeded runs with kills at failpoints, every result recounted; the long run: python -m load_tests.chaos
	@for seed in 1 2 3; do $(BIN)/python -m load_tests.chaos --kills 8 --workers 2 --seed $$seed $(ARGS) || exit 1; done

lint: $(VENV)/.dev  ## ruff and mypy only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev  ## rewrites the files as `lint` wants them
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

real: $(VENV)/.dev  ## 336,776 real flights of 2013 through Kafka and two workers
	@$(BIN)/python -m load_tests.real $(ARGS)

simulate: $(VENV)/.dev  ## thousands of seeds of the simulator: 2,000 of the real stages, 300 of them with everything on, 2,000 of the protocol alone
	@$(BIN)/python tests/simulation/run.py --kit real --jobs 2 --seeds 0..1999 $(ARGS)
	@$(BIN)/python tests/simulation/run.py --kit wide --jobs 2 --seeds 0..299 $(ARGS)
	@$(BIN)/python tests/simulation/run.py --kit toy --jobs 2 --seeds 0..1999 $(ARGS)

throughput: $(VENV)/.dev  ## events per wall and CPU second against a bare consumer and plain Faust
	@$(BIN)/python -m load_tests.throughput --json $(ARGS)

detection: $(VENV)/.dev  ## false alarms and delays of the detectors on seeded streams: an hour; ARGS=--quick for a look
	@$(BIN)/python -m load_tests.detection --jobs 2 $(ARGS)

env: $(VENV)/.dev  ## the development environment only

clean:  ## removes the environment and every cache inside this folder
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment. What the demo needs comes first and is a subset of the development lock, version for version
# (tests/unit/test_locks.py), so that `make demo` need not wait for the linters and the oracles.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "driftline needs Python 3.11, 3.12 or 3.13 on the path, or: make PYTHON=/path/to/python"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "driftline needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is another: make PYTHON=/path/to/python"; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV)

$(VENV)/.runtime: $(LOCKS)/runtime.txt $(LOCKS)/build.txt pyproject.toml | $(BIN)/python
	@echo "installing what driftline runs on"
	@$(PIP) install --require-hashes -r $(LOCKS)/runtime.txt -r $(LOCKS)/build.txt
	@$(INSTALL_SELF)
	@touch $@

$(VENV)/.dev: $(LOCKS)/dev.txt pyproject.toml | $(BIN)/python
	@echo "installing what driftline is developed with"
	@$(PIP) install --require-hashes -r $(LOCKS)/dev.txt
	@$(INSTALL_SELF)
	@touch $@ $(VENV)/.runtime
