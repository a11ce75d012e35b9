# One verb for each thing one does here; the same ones run in CI. ARGS="..." goes to the command behind a verb.
VENV := .venv
BIN := $(VENV)/bin
COMPOSE := docker compose
JOBS := 3
.DEFAULT_GOAL := help
.PHONY: help install setup local hooks build ps restart run demo test test-fast lint types fmt bench up logs down clean

help: ## this list
	@echo 'Penstock, a payment gateway engine. Start with: make run'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'Options go in ARGS: make run ARGS="--workers 4", make test ARGS="-k replay"; JOBS=1 tests one file at a time'

setup: ## make .venv with all that the checks need (PYTHON=... chooses the Python)
	@VENV=$(VENV) ops/setup.sh dev

local:
	@VENV=$(VENV) ops/setup.sh local

install: local ## make .venv with what running needs

hooks: setup ## the checks of CI that take seconds, before each commit of this clone
	@$(BIN)/pre-commit install

build: setup ## the package as a wheel, in dist
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist . && ls dist/*.whl

run: local ## the whole of Penstock on this machine, no Docker needed; Ctrl-C stops it
	@$(BIN)/penstock up $(ARGS)

demo: local ## the FicMart story from order to refund, on a stack of its own
	@$(BIN)/penstock demo $(ARGS)

test: setup ## all tests, three files at a time, against real Postgres and Redis that they start themselves
	@$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: setup ## the tests that start no programs of their own, to the first failure
	@$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder -x -m 'not slow' $(ARGS)

lint: setup ## style: ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## types: mypy, strict
	$(BIN)/mypy

fmt: setup ## format the code, and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: local ## how many payments a second this machine sustains, with a verdict
	@$(BIN)/penstock bench $(ARGS)

up: .env ## the same as a deployment, with docker compose: http://127.0.0.1:8000
	$(COMPOSE) up --build --detach --wait $(ARGS)

# Secrets are made here and never have defaults; the file stays on this machine.
.env: ops/compose-secrets.sh
	@ops/compose-secrets.sh .env

logs: ## follow the logs of what runs: make run, or else make up
	@if [ -e .penstock/state.json ]; then exec tail -n 50 -F .penstock/logs/*.log; else exec $(COMPOSE) logs --tail 50 --follow; fi

ps: ## what runs, and where: make run, or else make up
	@if [ -e .penstock/state.json ]; then exec $(BIN)/penstock status $(ARGS); else exec $(COMPOSE) ps $(ARGS); fi

restart: ## end what runs in good order and start it again, here: make run, or else make up
	@if [ -e .penstock/state.json ]; then exec $(BIN)/penstock restart $(ARGS); \
	else exec $(COMPOSE) restart $(ARGS); fi

down: ## end what runs in good order: make run, or else make up; its data stays
	@if [ -e .penstock/state.json ]; then exec $(BIN)/penstock down $(ARGS); \
	else ops/compose-secrets.sh .env && exec $(COMPOSE) down $(ARGS); fi

clean: ## remove caches and .venv; data stays (penstock up --fresh, docker compose down --volumes)
	rm -rf .venv .venv-* .api-tools .hypothesis .mypy_cache .pytest_cache .ruff_cache dist
	find engine http bank ops tests -type d -name __pycache__ -prune -exec rm -rf {} +
