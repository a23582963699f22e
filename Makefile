# Everything lives in .venv/; a stamp stands for "installed from this lock", so a second run installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= sockets
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
LOCK := $(VENV)/lock
PIP_COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(LOCK)/bin/pip-compile --quiet --upgrade --generate-hashes \
	--strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.DEFAULT_GOAL := install
.PHONY: install run test test-long demo load load-smoke lock format clean help

install: $(VENV)/installed-dev ## install everything into .venv/ (the default)

run: $(VENV)/installed-runtime ## start everything on http://127.0.0.1:8000; Ctrl-C ends it
	@exec $(BIN)/python -m services all

test: $(VENV)/installed-dev ## format, lint, types and all tests but the long ones
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 -m "not long"

test-long: $(VENV)/installed-dev ## the long fault and load runs
	$(BIN)/python -m pytest -m long

demo: $(VENV)/installed-dev ## replay real sensor readings, and count what was lost
	@exec $(BIN)/python -m tests.demo

load: $(VENV)/installed-dev ## measure: make load RUN="sockets --rate 1000"; RUN=--help lists the scenarios
	@exec $(BIN)/python -m tests.load $(RUN)

load-smoke: $(VENV)/installed-dev ## a load run of seconds, also part of `make test`
	$(BIN)/python -m pytest -s tests/load/test_smoke.py

lock: $(VENV)/made ## renew requirements.txt and requirements-dev.txt
	test -x $(LOCK)/bin/pip-compile || { $(BIN)/python -m venv $(LOCK) && $(LOCK)/bin/pip install --quiet pip-tools; }
	$(PIP_COMPILE) --output-file=requirements.txt pyproject.toml
	$(PIP_COMPILE) --extra=dev --constraint=requirements.txt --output-file=requirements-dev.txt pyproject.toml

format: $(VENV)/installed-dev ## format the code, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv/ and the caches; the data in .data/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find services shared tests -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "Python lacks its venv module: on Debian, apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/installed-runtime: requirements.txt $(VENV)/made
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

# The same versions and more: whoever has these has the runtime set too.
$(VENV)/installed-dev: requirements-dev.txt requirements.txt $(VENV)/made
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $(VENV)/installed-runtime $@
