# make run     everything on this machine: http://127.0.0.1:8000 (PORT and ALEPH_DATA are honoured)
# make test    the tests, on SQLite and an embedded Redis, or on TEST_DATABASE_URL and TEST_REDIS_URL
# make check   what a change must pass: format, lint, types, layers, migrations, deployment, tests
# make proofs  all of that but the tests
# make translations   the Indonesian catalogue, brought up to date with the source and compiled

# The first Python 3.11 that really runs; a version manager may leave names behind that do not.
IS_311 := -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
PYTHON ?= $(shell for p in python3.11 python3 python; do $$p $(IS_311) 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes

.DEFAULT_GOAL := run
.PHONY: run test check proofs style types layers migrations deployment translations format lock bench bench-size chaos clean

run: $(VENV)/installed
	@exec $(BIN)/python -m aleph.run

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest $(TESTS)

check: proofs test

proofs: style types layers migrations deployment

style: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

layers: $(VENV)/installed-dev
	$(BIN)/lint-imports

migrations: export ALEPH_DATA := $(CURDIR)/var/check
migrations: $(VENV)/installed-dev
	$(BIN)/python manage.py makemigrations --check --dry-run

# What a real deployment sets, with values that only a check may have.
deployment: export ALEPH_ENV := production
deployment: export ALEPH_DATA := $(CURDIR)/var/check
deployment: export ALLOWED_HOSTS := aleph.example
deployment: export SECRET_KEY := only-for-the-check-GJ5qVQ0v2fLx7TzYk9sWn3bMh8dRc4pE
deployment: export FIELD_KEYS := check:b25seS1mb3ItdGhlLWNoZWNrLTAxMjM0NTY3ODlhYiE
deployment: $(VENV)/installed-dev
	$(BIN)/python manage.py check --deploy --fail-level WARNING

translations: export ALEPH_DATA := $(CURDIR)/var/check
translations: $(VENV)/installed-dev
	$(BIN)/python manage.py translations

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The versions that everybody gets, with their hashes. Add UPGRADE=--upgrade to move to newer ones.
lock: $(VENV)/installed-dev
	$(BIN)/pip-compile $(LOCK) --output-file=requirements.lock pyproject.toml
	$(BIN)/pip-compile $(LOCK) --extra=dev --constraint=requirements.lock --output-file=requirements-dev.lock pyproject.toml

LOCK := --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links $(UPGRADE)

bench: $(VENV)/installed-dev var/bench-venv/bin/litellm
	$(BIN)/python -m bench.run $(BENCH)

# Usage over millions of calls, in a database of its own that BENCH_DATABASE_URL names. Method: docs/performance.md.
bench-size: $(VENV)/installed-dev
	DATABASE_URL=$(BENCH_DATABASE_URL) ALEPH_DATA=$(CURDIR)/var/bench-size $(BIN)/python -m bench.size $(BENCH)

# The product killed at random while people use it: DB=sqlite or postgres, SECONDS, KILLS, SEED. Method: docs/chaos.md.
chaos: $(VENV)/installed-dev
	$(BIN)/python -m chaos.run --database $(or $(DB),sqlite) --seconds $(or $(SECONDS),300) --kills $(or $(KILLS),300) \
		$(if $(SEED),--seed $(SEED)) $(CHAOS)

# What the product is compared with, in an environment of its own.
var/bench-venv/bin/litellm: bench/requirements.txt
	$(PYTHON) -m venv var/bench-venv
	var/bench-venv/bin/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Stamps: nothing is installed again until a lock file changes.
$(BIN)/python:
	@$(PYTHON) $(IS_311) 2>/dev/null \
		|| { echo "Aleph needs Python 3.11. Name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: requirements.lock | $(BIN)/python
	@echo "Installing what Aleph needs (once) ..."
	@$(INSTALL) -r requirements.lock
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock | $(VENV)/installed
	@echo "Installing what the tests need (once) ..."
	@$(INSTALL) -r requirements-dev.lock
	@touch $@
