# The environment: the active one, else .venv, which is made when there is none.
PYTHON ?= python3
VENV ?= $(or $(VIRTUAL_ENV),.venv)
BIN = $(VENV)/bin
READY = $(VENV)/.cdb-ready

# Half of the time the tests wait, each with databases and servers of its own.
AT_ONCE = --numprocesses auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test check lint test-all interop browser fuzz crash-test hostile odd-files siege bench clean

help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY)  ## Start a master, store sample calibrations, ask for them; leaves demo-data/
	@$(BIN)/python -m demo demo-data

test: lint  ## Check style and types, run all tests on SQLite and PostgreSQL
	@# Tests start thousands of processes: none compiles the modules again, even where Python may not keep what it compiles.
	$(BIN)/python -m compileall -q -x /build/ client server demo tests
	$(BIN)/python -m pytest $(AT_ONCE)

check: lint  ## Check style and types, run the tests of what is being changed: in a minute or so
	$(BIN)/python -m pytest $(AT_ONCE) $$($(BIN)/python -m tests.changed)

lint: $(READY)  ## Check style (ruff) and types (mypy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-all:  ## Run the tests (TESTS=tests/server) on every Python from 3.10 to 3.13 that there is, or on PYTHONS="3.11 3.13"
	@PYTHONS="$(PYTHONS)" tests/all_pythons $(AT_ONCE) $(TESTS)

interop: $(READY)  ## Run SOAP clients in other languages, nginx, caches, networks and systemd, installing what they need
	tests/interop/install
	$(BIN)/python -m pytest tests/interop

browser: $(READY)  ## Walk through the pages in a headless Chromium, installing it; leaves pictures in tests/browser/build
	tests/browser/install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
	$(BIN)/python -m pytest tests/browser

SECONDS ?= 60
SEED ?= 1
fuzz: $(READY)  ## Send generated requests and check every answer, for SECONDS=60, from SEED=1
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

CYCLES ?= 2000
crash-test: $(READY)  ## Kill the server under load, CYCLES=2000 times, and check that nothing is lost
	tests/crash/install
	$(BIN)/python -m pytest tests/crash
	$(BIN)/python -m tests.crash --cycles $(CYCLES) --seed $(SEED)

REQUESTS ?= 1000000
hostile: $(READY)  ## Spoil answers at every byte, ask in odd ways (REQUESTS=1000000), lie to a mirror
	$(BIN)/python -m tests.hostile --requests $(REQUESTS)
	$(BIN)/python -m pytest tests/hostile/test_false_master.py

PAYLOADS ?= 20000
odd-files: $(READY)  ## Store odd files (PAYLOADS=20000), and look at each by every page within half a second
	$(BIN)/python -m tests.hostile.view_payloads --count $(PAYLOADS)

siege: $(READY)  ## Beset a server by hundreds that read nothing, ask long questions or look at large tables, and check who waits
	$(BIN)/python -m tests.hostile.memory_load
	$(BIN)/python -m pytest -s tests/hostile/test_fairness.py

bench: $(READY)  ## Measure how fast the service is, against references measured likewise; leaves bench-data/
	tests/benchmarks/install
	$(BIN)/python -m tests.benchmarks

clean:  ## Remove what the targets above made
	rm -rf .venv .venvs demo-data bench-data build tests/interop/build tests/browser/build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): setup.cfg setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
