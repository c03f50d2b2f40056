# Each verb makes what it needs first; a second call makes nothing again.
.DEFAULT_GOAL := help
.PHONY: help setup venv demo gallery serve test test-unit soak bench lint lock readme clean

VENV ?= .venv
TOOLS ?= .tools
export VENV
export LORIKEET_TOOLS := $(abspath $(TOOLS))
# OpenMP threads of several processes on one machine: see runtime/supervisor/server.py
export OMP_WAIT_POLICY ?= passive
# Triton's stubs find the environment through the first python3 on PATH
export PATH := $(abspath $(VENV))/bin:$(PATH)
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest --durations=10
TESTS := $(wildcard tests/unit tests/server tests/journeys)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## the Python environment and the Triton server, into VENV and TOOLS
	@deploy/setup.sh venv tools

venv:
	@deploy/setup.sh venv

demo: setup ## one picture through a real server: IMAGE=in.png PROMPT="..." MODEL=... LORA=... OUT=... (all optional)
	@$(PY) -m deploy.demo $${IMAGE:+--image "$$IMAGE"} $${PROMPT:+--prompt "$$PROMPT"} \
	    $${MODEL:+--model "$$MODEL"} $${LORA:+--lora "$$LORA"} $${OUT:+--out "$$OUT"}

gallery: setup ## the README's pictures, painted anew by a server of its own, or by SERVER=grpc://host:port
	@$(PY) -m deploy.gallery $${SERVER:+--server "$$SERVER"}

serve: setup ## the server, supervised, until Ctrl-C
	@exec $(PY) -m runtime.supervisor

test: setup ## all tests: units, then a real server, then whole journeys
	@$(PYTEST) $(TESTS) $(ARGS)

test-unit: venv ## the unit tests alone
	@$(PYTEST) tests/unit $(ARGS)

soak: setup ## thousands of requests, cancelled, late and bad ones among them, with stages killed in between: ten to twenty minutes
	@$(PYTEST) tests/soak -s -o faulthandler_timeout=0 $(ARGS)

bench: setup ## measure all cases, or CASES="...": writes benchmarks/results and the README's table; continues after an interruption
	@$(PY) -m benchmarks $(CASES)

lint: venv ## style, format and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@deploy/typecheck.sh

lock: venv ## write requirements.lock anew (UPGRADE=1: with the newest releases)
	@mkdir -p $(TOOLS) && deploy/lock.sh

readme: venv ## write the README's generated parts: the settings, and the table of benchmarks/results
	@$(PY) -m deploy.readme
	@$(PY) -m benchmarks.table

clean: ## remove what the verbs above made
	rm -rf $(VENV) $(VENV).log $(VENV).lock $(TOOLS) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info client/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
