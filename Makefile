# `make demo` and `make test` are the two commands of the README; each makes .venv when needed.
# Another Python gets a venv of its own: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Test processes at a time; `auto` is one for each core, and 0 runs the suite in this process.
JOBS ?= auto
# Seconds under load of the system that is killed in the middle: make soak SOAK_SECONDS=600
SOAK_SECONDS ?= 60
NODE := tests/clients/node
PYTEST := -m pytest -n $(JOBS) --dist worksteal
# Where this is set, as in many containers, each of some 300 processes that the tests start would
# compile the package anew, and each run all tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test quick check async lint types coverage docs drawings mutants bench soak fuzz \
  clients monitoring lock clean
help:           ## list the commands
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12
	@echo; echo "With another Python: make test PYTHON=python3.13 VENV=.venv-3.13"

setup: $(VENV)/ready  ## make .venv with the package and its development tools
$(VENV)/ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

demo: setup     ## a gateway whose providers change while it streams: no key, under a minute
	$(BIN)/bridgepool demo

test: setup     ## the test suite
	$(BIN)/python $(PYTEST)

quick: lint     ## lint, types, and the tests of the core and the pure parts: under a minute
	$(BIN)/python $(PYTEST) -q tests/core tests/properties tests/gateway/providers \
	  tests/http/test_wire.py tests/test_layers.py tests/test_invariants.py

check: lint async  ## format, lint, types; with the slow linter for async code, too

async: setup
	find src examples -name "*.py" -print0 | xargs -0 -n 50 -P "$$(nproc)" $(BIN)/flake8-async

lint: setup types ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup    ## mypy on everything, pyright on the examples and the public API
	$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" pyright
	PATH="$(abspath $(BIN)):$$PATH" pyright --verifytypes bridgepool --ignoreexternal

coverage: setup ## the test suite, with every branch of the core accounted for
	rm -f .coverage .coverage.*
	$(BIN)/coverage run $(PYTEST)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --include='src/bridgepool/_*.py' --fail-under=100
	$(BIN)/coverage report --fail-under=90

docs: setup     ## build docs/ into docs/_build, warnings are errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build
	@echo "the pages are in docs/_build/index.html"

drawings:       ## make the SVG drawings of the docs from their sources (needs graphviz)
	set -e; for dot in docs/drawings/*.dot; do \
	  dot -Tsvg $$dot -o $${dot%.dot}.svg; \
	  echo "<!-- sha256 of the source: $$(sha256sum < $$dot | cut -c1-64) -->" >> $${dot%.dot}.svg; done

mutants: setup  ## plant every known bug in a copy; the tests must catch each
	$(BIN)/python -m tools.mutants

bench: setup    ## the table of figures (nginx and wrk take part where installed)
	$(BIN)/python -m benchmarks

soak: setup     ## 200 streams, 50 websockets, 20 changes a second; a system that is killed: about 110 s
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -m soak -s tests/soak

# Needs node with npm, and Debian's chromium. Codex is a download of 150 MB.
clients: setup $(NODE)/node_modules/.package-lock.json  ## clients of others through a gateway: Codex, SDKs for Node, a browser
	$(BIN)/python -m pytest -m clients tests/clients
$(NODE)/node_modules/.package-lock.json: $(NODE)/package-lock.json
	npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund --fetch-retries=5
	touch $@

monitoring: setup  ## metrics, alert rules and a scrape by a real Prometheus (Debian's package prometheus)
	@command -v promtool >/dev/null && command -v prometheus >/dev/null || { \
	  echo "make monitoring needs promtool and prometheus: apt-get install prometheus" >&2; exit 1; }
	$(BIN)/python -m pytest -m monitoring tests/monitoring

fuzz: setup $(VENV)-fuzz/ready  ## malformed requests at every port; the API against generated ones, from its description
	$(BIN)/python -m tools.fuzz_http
	$(BIN)/python -m tools.fuzz_api $(VENV)-fuzz/bin/schemathesis
# A venv of its own: the fuzzer pins libraries that the tests use in other versions.
$(VENV)-fuzz/ready: tools/fuzz.lock
	$(PYTHON) -m venv $(VENV)-fuzz
	$(VENV)-fuzz/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/fuzz.lock
	touch $@

lock:           ## resolve requirements.lock and tools/fuzz.lock anew (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 --extra dev --no-emit-package bridgepool \
	  pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 tools/fuzz.in -o tools/fuzz.lock

clean:          ## remove what the other commands made
	rm -rf $(VENV) $(VENV)-fuzz $(NODE)/node_modules docs/_build .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
