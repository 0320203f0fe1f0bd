# `make` alone lists what there is. Everything happens in .venv, made on first use.

VENV := .venv
BIN := $(VENV)/bin
# Extra arguments, e.g. make run ARGS="--port 9000" or make test ARGS="tests/unit -x".
ARGS ?=
# Which row of docs/reliability.md, how often, and how long each fault lasts.
ROW ?= all
ROUNDS ?= 1
SECONDS ?= 30
# More processes than cores, because much of the time is waiting. See tests/support/scheduling.py.
PARALLEL := -n 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help run test faults check lint format types imports audit install lock chart-readme clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/installed ## Start everything here: database, cache, log, worker, API (Ctrl-C stops it)
	@exec $(BIN)/todo up $(ARGS)

test: $(VENV)/installed-test ## Install what the tests need and run them all
	$(BIN)/pytest $(PARALLEL) $(ARGS)

faults: $(VENV)/installed-test ## Break everything in turn, under load, and check the books (ROW=4 ROUNDS=10 SECONDS=30)
	$(BIN)/pytest tests/faults --fault-row $(ROW) --fault-rounds $(ROUNDS) --fault-seconds $(SECONDS) \
		--fault-results bench-results $(ARGS)

check: lint types imports ## Lint, types and import contracts

lint: $(VENV)/installed-test ## Style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed-test ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/installed-test ## Check types, strictly
	$(BIN)/mypy

imports: $(VENV)/installed-test ## Check which part may import which
	$(BIN)/lint-imports

audit: $(VENV)/installed-test ## Look the pinned versions up in a database of vulnerabilities
	$(BIN)/python -m scripts.audit

install: $(VENV)/installed ## Make .venv with everything that `make run` needs

lock: ## Pin the newest versions that setup.cfg allows, in constraints.txt
	scripts/setup.sh lock

chart-readme: $(VENV)/installed-test ## Write the table of values into the chart's README
	$(BIN)/python -m scripts.chart_readme

clean: ## Remove .venv and caches; the data in .todo stays
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

INPUTS := setup.cfg pyproject.toml constraints.txt scripts/setup.sh

$(VENV)/installed: $(INPUTS)
	scripts/setup.sh run
	@touch $@

$(VENV)/installed-test: $(INPUTS)
	scripts/setup.sh test
	@touch $@ $(VENV)/installed
