# The doors of the project: make env | demo | test | system | check | bench
PYTHON ?= python3.11
VENV   := .venv
# Tests that run side by side: most of their time is waiting.
LANES  ?= 3
BIN    := $(VENV)/bin
# Run, not only found: a shim of pyenv may be on PATH with nothing behind it.
UV     := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo .uv/bin/uv)

.PHONY: help env demo test system check format bench clean

help:
	@echo "make env     build $(VENV) from uv.lock"
	@echo "make demo    the whole loop on the flights of 2013 (FRESH=1 starts over, KEEP=1 leaves the pages up)"
	@echo "make test    the test suite"
	@echo "make system  the slow tests: an Airflow and a Docker Engine whose processes are killed"
	@echo "make check   style, types, import contracts, lock file"
	@echo "make bench   the benchmarks, each against a peer"

env: $(VENV)/.made

$(VENV)/.made: pyproject.toml uv.lock | $(UV)
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(UV) sync --frozen --quiet --python $(PYTHON) --all-extras --no-extra celery --group dev
	@touch $@

.uv/bin/uv:
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"

# What the demo needs and no more, unless the whole environment is there.
$(VENV)/.demo: pyproject.toml uv.lock | $(UV)
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(UV) sync --frozen --inexact --quiet --python $(PYTHON) --extra demo --no-default-groups
	@touch $@

demo: $(if $(wildcard $(VENV)/.made),env,$(VENV)/.demo)
	@$(BIN)/airflow-mlops demo $(if $(FRESH),--fresh) $(if $(KEEP),--keep) $(DEMO)

# Tests that share a server run one after another, the others beside them (tests/fixtures/lanes.py).
test: env
	$(BIN)/pytest $(if $(TEST),,-m "not system" --numprocesses $(LANES) --dist loadscope --no-loadscope-reorder) $(TEST)

# What is slower, mostly because it waits: an Airflow of its own for each file.
system: env
	$(BIN)/pytest -m system tests/integration

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(UV) lock --check --quiet --python $(PYTHON)

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: env
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(UV) sync --frozen --inexact --quiet --all-extras --no-extra celery --group dev --group bench
	$(BIN)/python benchmarks/provisioning.py
	$(BIN)/python benchmarks/assumptions.py
	$(BIN)/python benchmarks/containers.py
	$(BIN)/python benchmarks/tuning.py
	$(BIN)/python benchmarks/parse.py

clean:
	rm -rf $(VENV) .uv .demo dist
