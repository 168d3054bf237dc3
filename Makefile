# `make demo` and `make test` are all the set-up there is: python3 (3.11 or newer, with venv) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.lock

.PHONY: demo test check bench chaos lock clean

$(VENV)/.installed: $(LOCK) pyproject.toml
	@echo "installing into $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.installed  ## the gate on a live tracker, in about a minute
	@$(BIN)/remit demo --dir demo

test: check  ## lint, types, and the suite on SQLite and on Postgres
	$(BIN)/python -m pytest --database sqlite
	$(BIN)/python -m pytest --database postgres

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench: $(VENV)/.installed  ## speed and memory, beside the physical floor
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.queue

chaos: $(VENV)/.installed  ## a thousand runs on a live tracker, through killed and stalled workers and a database that goes away
	REMIT_CHAOS_RUNS=1000 $(BIN)/python -m pytest --database sqlite -s tests/connectors/test_chaos.py
	REMIT_CHAOS_RUNS=1000 $(BIN)/python -m pytest --database postgres -s tests/connectors/test_chaos.py

# Extras stay in the lock: without them an older pip takes the newest release for `name[extra]`, which no hash allows.
lock:  ## resolve dependencies anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header --all-extras --group dev pyproject.toml -o $(LOCK)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header requirements/receiver.in -o requirements/receiver.lock

clean:
	rm -rf $(VENV) demo
