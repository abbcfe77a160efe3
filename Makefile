# Every command a developer needs, one word each. `make help` lists them.
# The interpreter that makes the environments; nothing is installed into it.
PYTHON ?= $(or $(shell command -v python3.11),python3)
PACKAGES := contracts edge_agent gateway flink_jobs lakehouse federation onnx_models infra benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup up down status demo test check sim bench deb clean

help: ## Lists these commands.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

setup: ## Brings everything the other commands need, and only what is missing; each of them begins with it.
	@$(PYTHON) -m infra.setup

up: setup ## Starts the whole stack and returns when every part is ready.
	@.venv/bin/fieldlake up

down: setup ## Stops everything that `make up` started, and nothing else.
	@.venv/bin/fieldlake down

status: setup ## Shows each part: pid, memory, ready, address, last error.
	@.venv/bin/fieldlake status

demo: setup ## Runs the main job on real input, kills parts of it half-way, and checks that nothing was lost.
	@.venv/bin/fieldlake demo

test: setup ## Runs every test, the ones against the real components among them.
	@.venv/bin/python -m pytest

check: setup ## Runs the static part: style, types, import directions, tidiness; under a minute.
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy $(PACKAGES)
	.venv/bin/lint-imports
	.venv/bin/python -m pytest -q tests/tidy

bench: setup ## Measures and writes benchmarks/results/NAME.json: make bench NAME=spine.
	@test -n "$(NAME)" || { echo "make bench: expected NAME=<benchmark>, for example: make bench NAME=spine" >&2; exit 2; }
	@.venv/bin/python -m benchmarks $(NAME) $(if $(QUICK),--quick)

sim: setup ## Plays a seed's faults around a simulated device and tells what came of them: make sim SEED=7 [SCHEDULES=500].
	@.venv/bin/python -m tests.sim --seed $(or $(SEED),0) --schedules $(or $(SCHEDULES),1)

deb: setup ## Builds the Debian package of the agent, for devices, into out/deb.
	@.venv/bin/python -m infra.packaging

clean: ## Deletes what runs left in the tree (state, reports, caches); environments and downloads stay.
	@if [ -e .fieldlake ] && [ -x .venv/bin/fieldlake ]; then .venv/bin/fieldlake down; fi
	rm -rf .fieldlake .fieldlake-* out benchmarks/out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -path ./.venv -prune -o -path ./.venvs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
