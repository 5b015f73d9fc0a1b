# Everything a checkout needs: `make run` for the service, `make test` before a change is handed in.
# The stamps in .venv make a repeated run instant; they are older than a lock that changed, so a pull reinstalls.

PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
# The package itself is installed editable, which setuptools warns of, and without isolation: its build needs nothing but
# the locked setuptools.
PACKAGE := PYTHONWARNINGS='ignore:Editable installation' $(PIP) --no-deps --no-build-isolation --editable .
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
PYTHON_FILES := gateway tests deploy bench
# The peers of `make bench` and their packages, apart from what the gateway runs on.
BENCH := build/bench
# Much of the suite waits for leases and failovers, so that two side by side take little more than half the time.
TESTS_AT_ONCE ?= 2

.DEFAULT_GOAL := help
.PHONY: help run test check sbom soak fuzz bench demo screenshots venv lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.runtime ## start the gateway on http://127.0.0.1:8080 (settings come from the environment)
	@exec $(BIN)/gateway serve $(ARGS)

test: check ## everything `make check` does, then the whole test suite
	$(BIN)/pytest --numprocesses $(TESTS_AT_ONCE) --dist worksteal

check: venv ## formatting, linters, types, the import contract, known vulnerabilities
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/mypy
	$(BIN)/mypy deploy/demo.py deploy/target.py
	$(BIN)/mypy deploy/audit.py
	$(BIN)/mypy bench/*.py
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --severity-level medium --recursive gateway deploy
	$(BIN)/python deploy/audit.py $(AUDIT)

sbom: venv ## build/sbom.json: what the gateway runs on, as CycloneDX
	@mkdir -p build
	$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-format JSON --output-file build/sbom.json

soak: venv ## the model and every fault at length, about an hour; the results go to build/soak.md
	MODEL_STEPS=$${MODEL_STEPS:-200000} $(BIN)/pytest tests/test_model.py
	PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

fuzz: venv ## fuzz the decoders, ten minutes (FUZZ_SECONDS); what they found so far is in build/corpus
	PYTHONPATH=. $(BIN)/python tests/fuzz_decoders.py build/corpus -max_total_time=$${FUZZ_SECONDS:-600} -artifact_prefix=build/

demo: $(VENV)/.runtime ## three clients of different tiers, live, about ten seconds
	@$(BIN)/python deploy/demo.py

screenshots: venv ## take the pictures of the dashboard for docs/images anew (needs chromium)
	PYTHONPATH=tests $(BIN)/python tests/showcase.py docs/images

bench: $(VENV)/.runtime $(BENCH)/.python $(BENCH)/.node ## measure it against its peers, about 20 minutes (ARGS="--quick": 3)
	@$(BIN)/python -m bench $(ARGS)

venv: $(VENV)/.dev ## .venv with everything development needs

lock: ## write the locks anew (needs uv)
	$(COMPILE) --extra dev --extra otel pyproject.toml --output-file requirements-dev.lock
	$(COMPILE) --constraint requirements-dev.lock --extra otel pyproject.toml --output-file requirements.lock
	echo 'setuptools>=77' | $(COMPILE) --constraint requirements-dev.lock - --output-file requirements-build.lock
	$(COMPILE) --group bench --output-file requirements-bench.lock

clean: ## remove .venv, caches and builds (not the gateway's data)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find gateway tests deploy bench -type d -name __pycache__ -prune -exec rm -rf {} +

# A venv that was only half made would pass for a whole one at the next run, so a failure takes it away again.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.runtime: requirements.lock requirements-build.lock pyproject.toml | $(BIN)/python
	@echo "Installing the gateway into $(VENV) ..."
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --require-hashes -r requirements-build.lock
	@$(PACKAGE)
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	@echo "Installing the gateway and its development tools into $(VENV) ..."
	@$(PIP) --require-hashes -r requirements-dev.lock
	@$(PACKAGE)
	@touch $@

$(BENCH)/.python: requirements-bench.lock | $(BIN)/python
	@echo "Installing what the bench compares with into $(BENCH) ..."
	@$(BIN)/python -m venv --clear $(BENCH)/python
	@$(BENCH)/python/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes -r $<
	@touch $@

# Without npm there is no BullMQ, and the report says so.
$(BENCH)/.node: bench/peers/package-lock.json
	@mkdir -p $(BENCH)/node
	@cp bench/peers/package.json bench/peers/package-lock.json bench/peers/.npmrc $(BENCH)/node/
	@! command -v npm >/dev/null || npm install --prefix $(BENCH)/node --silent --no-audit --no-fund --ignore-scripts
	@touch $@
