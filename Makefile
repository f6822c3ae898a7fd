# Everything that people and machines run. `make` alone lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup check lint test bench chaos chaos-long demo demo-down cluster-up cluster-down images wheel crds examples lock

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/.done ## Install what everything below needs

.venv/.done: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

check: setup ## Check format, lint, types, import contracts, generated files
	$(BIN)/ruff format --check operator tests demo
	$(BIN)/ruff check operator tests demo
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m valetkey.kinds --check

test: check ## Run all tests on a real cluster (VALETKEY_TESTS=fast: only what needs none)
	$(BIN)/python -m tests

bench: setup ## Measure, beside a bare client in the same run
	$(BIN)/python -m tests.bench

chaos: setup ## Faults on a control plane of its own: a thousand grants, and what became of them (as root, on Debian)
	$(BIN)/python -m tests.chaos

chaos-long: setup ## The same with the API server away for 15 minutes, longer than any credential lives
	$(BIN)/python -m tests.chaos --long

demo: setup ## The main job, from cluster to revocation
	$(BIN)/python -m demo

demo-down: setup ## Remove what the demo made
	$(BIN)/python -m demo down

cluster-up: setup ## A local cluster, for people; it ends with the line that your shell must run
	$(BIN)/python -m tests.cluster.local up
	$(BIN)/python -m tests.cluster.local images
	@echo 'The line below is for your shell: paste it, or run eval "$$($(BIN)/python -m tests.cluster.local env)"'
	@$(BIN)/python -m tests.cluster.local env

cluster-down: setup ## End it
	$(BIN)/python -m tests.cluster.local down

images: setup ## Make and load the two images
	$(BIN)/python -m tests.cluster.local images

wheel: setup ## Build the wheel that operator/Dockerfile installs
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w build/wheel .

crds: setup ## Write crds/ from the models
	$(BIN)/python -m valetkey.kinds

examples: setup ## Write the table of what the examples decide
	$(BIN)/python -m tests.examples

lock: setup ## Lock the dependencies again
	@for set in base "operator --extra operator --extra cli" "dev --extra operator --extra cli --extra mcp --group dev"; do \
	  set -- $$set; name=$$1; shift; \
	  $(BIN)/uv pip compile --quiet --no-header --no-emit-index-url --no-emit-find-links --universal \
	    --python-version 3.11 --generate-hashes pyproject.toml $$@ -o requirements/$$name.txt; \
	done
