.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
MIN := .venv-min
BENCH := .venv-bench
# One more than the cores it is meant for: many tests wait for a server.
WORKERS ?= 3
PYTEST := -m pytest -n $(WORKERS)
PIP := -m pip --quiet --disable-pip-version-check
NEW_PIP := $(PIP) install --upgrade 'pip>=25.1'  # the first that knows --group
.PHONY: help install demo fmt lint type servers test soak cov min matrix mariadb pgbouncer \
  wheel-check docs bench check clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sort | awk -F ':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(NEW_PIP)
	$(BIN)/python $(PIP) install -e . --group dev --group integrations
	touch $@

install: $(INSTALLED)  ## make the virtual environment

demo: install  ## run the example program on an embedded database, or on DATABASE_URL
	$(BIN)/python -m examples.referrals

fmt: install  ## format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lint: install  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: install  ## check types with mypy and pyright
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright --verifytypes sessionfactory --ignoreexternal

# The servers of Debian's packages; a machine that cannot fetch them skips their tests, in one line.
# FETCH=no forbids it, and leaves out those that were fetched before.
ifeq ($(FETCH),no)
export SESSIONFACTORY_FETCHED = no
servers:
else
servers:
	@for server in mariadb pgbouncer; do \
	  $(MAKE) --no-print-directory $$server >.$$server.log 2>&1 && rm .$$server.log || \
	    echo "$$server cannot be fetched here, so its tests are skipped (.$$server.log says why)"; done
endif

test: install servers  ## run the tests; FETCH=no: without fetching MariaDB and PgBouncer
	$(BIN)/python $(PYTEST)

soak: install servers  ## run the tests that take long, and generated ones, with a random seed
	@seed=$${SESSIONFACTORY_SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}; \
	  echo "make soak SESSIONFACTORY_SEED=$$seed repeats this run"; \
	  export SESSIONFACTORY_RANDOM=1 SESSIONFACTORY_SEED=$$seed; \
	  $(BIN)/python $(PYTEST) --timeout 3600 --hypothesis-seed=$$seed --dist worksteal tests/soak \
	    $$(grep -rl '^from hypothesis' tests/*/)

cov: install servers  ## run the tests and require full branch coverage
	rm -f .coverage .coverage.*
	$(BIN)/coverage run $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

$(MIN)/installed: pyproject.toml tests/constraints-min.txt
	$(PYTHON) -m venv $(MIN)
	$(MIN)/bin/python $(NEW_PIP)
	$(MIN)/bin/python $(PIP) install -c tests/constraints-min.txt -e . --group dev
	touch $@

min: $(MIN)/installed  ## type-check and test with the oldest allowed dependencies
	$(MIN)/bin/mypy tests/typing --cache-dir $(MIN)/.mypy_cache
	PATH="$(CURDIR)/$(MIN)/bin:$$PATH" $(MIN)/bin/pyright tests/typing
	$(MIN)/bin/python $(PYTEST) -q

matrix:  ## test with every Python >= 3.11 that is found
	@for version in 3.11 3.12 3.13 3.14; do \
	  if python$$version -c '' 2>/dev/null; then echo "== Python $$version"; \
	    $(MAKE) test PYTHON=python$$version VENV=.venv-$$version || exit 1; fi; done

wheel-check: install  ## build the wheel, and use it in an empty directory
	rm -rf dist .venv-wheel
	$(BIN)/python -m build --wheel --no-isolation --outdir dist
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python $(PIP) install dist/*.whl
	.venv-wheel/bin/python tests/wheel_check.py

mariadb:  ## fetch MariaDB and Galera into .mariadb, without installing anything
	tests/fetch-packages.sh MariaDB .mariadb mariadbd mariadb-server-core mariadb-server \
	  mariadb-client-core mariadb-client mariadb-backup galera-4 rsync socat

pgbouncer:  ## fetch PgBouncer into .pgbouncer, without installing anything
	tests/fetch-packages.sh PgBouncer .pgbouncer pgbouncer pgbouncer

$(VENV)/docs-installed: $(INSTALLED)
	$(BIN)/python $(PIP) install --group docs
	touch $@

docs: $(VENV)/docs-installed  ## build the documentation into docs/_build/html, without the network
	$(BIN)/python -m sphinx -b html -W --keep-going -n -q docs docs/_build/html

$(BENCH)/installed: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python $(NEW_PIP)
	$(BENCH)/bin/python $(PIP) install -e . --group bench
	touch $@

bench: $(BENCH)/installed  ## measure against what a user would pick instead, and write it down
	$(BENCH)/bin/python -m benchmarks --write

# The suite runs with all servers and coverage, and then with the oldest packages and without those
# servers that are fetched.
check: lint type docs wheel-check cov  ## all that CI runs
	@$(MAKE) --no-print-directory min FETCH=no

clean:  ## remove everything that was made
	rm -rf $(VENV) .venv-* .mariadb .pgbouncer .mariadb.log .pgbouncer.log dist .coverage* htmlcov .mypy_cache .ruff_cache .pytest_cache
