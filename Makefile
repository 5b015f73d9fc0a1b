# Everything a checkout needs: `make run` for the service, `make test` before a change is handed in.
# The stamps in .venv make a repeated run instant; they are older than a lock that changed, so a pull reinstalls.

PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
# The package itself is installed editable and without isolation: its build needs nothing but the locked setuptools.
PACKAGE := $(PIP) --no-deps --no-build-isolation --editable .
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
PYTHON_FILES := gateway tests deploy

.DEFAULT_GOAL := help
.PHONY: help run test check soak demo venv lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.runtime ## start the gateway on http://127.0.0.1:8080 (settings come from the environment)
	@exec $(BIN)/gateway serve $(ARGS)

test: check ## everything `make check` does, then the whole test suite
	$(BIN)/pytest

check: venv ## formatting, linters, types and the import contract
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/mypy
	$(BIN)/mypy deploy/demo.py deploy/target.py
	$(BIN)/lint-imports

soak: venv ## the model and every fault at length, about half an hour; the results go to build/soak.md
	MODEL_STEPS=$${MODEL_STEPS:-200000} $(BIN)/pytest tests/test_model.py
	PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

demo: $(VENV)/.runtime ## three clients of different tiers, live, about ten seconds
	@$(BIN)/python deploy/demo.py

venv: $(VENV)/.dev ## .venv with everything development needs

lock: ## write the three locks anew (needs uv)
	$(COMPILE) --extra dev pyproject.toml --output-file requirements-dev.lock
	$(COMPILE) --constraint requirements-dev.lock pyproject.toml --output-file requirements.lock
	echo 'setuptools>=77' | $(COMPILE) --constraint requirements-dev.lock - --output-file requirements-build.lock

clean: ## remove .venv, caches and builds (not the gateway's data)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find gateway tests deploy -type d -name __pycache__ -prune -exec rm -rf {} +

# A venv that was only half made would pass for a whole one at the next run, so a failure takes it away again.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

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
