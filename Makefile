# Everything lives in .venv/. A stamp file records what was installed, so a second run installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= sockets
CLUSTER ?= own
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
LOCK := $(VENV)/lock
SBOM := $(VENV)/sbom
PIP_COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(LOCK)/bin/pip-compile --quiet --upgrade --generate-hashes \
	--strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

# Compiled, the tests and services are imported in half the time; some environments ask Python for no bytecode.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install run demo check test test-long load load-smoke cluster cluster-up cluster-down lock sbom
.PHONY: promtool prometheus format clean

help: ## list these targets (the default)
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

install: $(VENV)/installed-dev ## install everything into .venv/

run: $(VENV)/installed-runtime ## start everything on http://127.0.0.1:8000; Ctrl-C ends it
	@exec $(BIN)/python -m services all

demo: $(VENV)/installed-dev ## replay real sensor readings through a stack, and count what was lost
	@exec $(BIN)/python -m tests.demo

check: $(VENV)/installed-dev ## format, lint and types, in seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The tests often wait, and leave the types enough of the processors. Types come last: their errors stay in sight.
# In a fresh clone one process compiles the tests first, or each of the workers would.
test: $(VENV)/installed-dev ## what `make check` does, and all tests but the long ones
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@nice -n 19 $(BIN)/mypy >$(VENV)/types 2>&1 & types=$$!; trap 'kill $$types 2>/dev/null' EXIT; \
	test -d tests/__pycache__ || $(BIN)/python -m pytest --collect-only -q >/dev/null 2>&1; \
	$(BIN)/python -m pytest -n 4 -m "not long"; tests=$$?; \
	wait $$types; wrong=$$?; cat $(VENV)/types; exit $$((tests || wrong))

test-long: $(VENV)/installed-dev ## the long fault and load runs, about twenty minutes
	$(BIN)/python -m pytest -m long

load: $(VENV)/installed-dev ## measure: make load RUN="sockets --rate 1000"; RUN=--help lists the scenarios
	@exec $(BIN)/python -m tests.load $(RUN)

load-smoke: $(VENV)/installed-dev ## a load run of seconds, also part of `make test`
	$(BIN)/python -m pytest -s tests/load/test_smoke.py

cluster: $(VENV)/installed-dev ## operate a real Kubernetes under load; CLUSTER=kind, kubeconfig or its path for another
	@exec $(BIN)/python -m tests.cluster run --cluster $(CLUSTER)

cluster-up: $(VENV)/installed-dev ## start a one-node Kubernetes, and leave it running
	@exec $(BIN)/python -m tests.cluster up

cluster-down: $(VENV)/installed-dev ## end it
	@exec $(BIN)/python -m tests.cluster down

lock: $(VENV)/made ## renew requirements.txt and requirements-dev.txt from pyproject.toml
	test -x $(LOCK)/bin/pip-compile || { $(BIN)/python -m venv $(LOCK) && $(LOCK)/bin/pip install --quiet pip-tools; }
	$(PIP_COMPILE) --output-file=requirements.txt pyproject.toml
	$(PIP_COMPILE) --extra=dev --constraint=requirements.txt --output-file=requirements-dev.txt pyproject.toml

promtool: $(VENV)/promtool ## build promtool from its Go module, for the tests of alerts; needs Go

prometheus: $(VENV)/prometheus ## build Prometheus likewise, for the long test of the dashboard

$(VENV)/promtool $(VENV)/prometheus: $(VENV)/%: tests/deploy/promtool/go.sum $(VENV)/made
	cd tests/deploy/promtool && PATH="$$PATH:/usr/local/go/bin" go build -tags remove_all_sd -trimpath -ldflags "-s -w" \
		-o $(CURDIR)/$(BIN)/$* github.com/prometheus/prometheus/cmd/$*
	@touch $@

sbom: $(VENV)/made ## write the bill of materials of the image's Python packages: dist/sbom.cdx.json (CycloneDX)
	test -x $(SBOM)/bin/cyclonedx-py \
		|| { $(BIN)/python -m venv $(SBOM) && $(SBOM)/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom; }
	mkdir -p dist
	$(SBOM)/bin/cyclonedx-py requirements --output-reproducible --of JSON -o dist/sbom.cdx.json requirements.txt

format: $(VENV)/installed-dev ## format the code, and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv/ and the caches; the data in .data/ stays
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find services shared tests -name __pycache__ -type d -prune -exec rm -rf {} +

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

# The development set holds the runtime set at the same versions, so it stamps both.
$(VENV)/installed-dev: requirements-dev.txt requirements.txt $(VENV)/made
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $(VENV)/installed-runtime $@
