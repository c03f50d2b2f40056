# Each target first makes what it needs. A second call does not repeat finished work.
.DEFAULT_GOAL := help
.PHONY: help setup venv clients demo gallery serve gateway export test test-unit verify soak bench gpu-bench lint lock readme clean stubs trt-full trt-tiny gpu-check

VENV ?= .venv
TOOLS ?= .tools
export VENV
export LORIKEET_TOOLS := $(abspath $(TOOLS))
# For the networks that the tests run in their own process: see runtime/cpu.py
export OMP_WAIT_POLICY ?= passive
export THP_MEM_ALLOC_ENABLE ?= 1
# Triton's stubs find the environment through the first python3 on PATH
export PATH := $(abspath $(VENV))/bin:$(PATH)
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest --durations=10
TESTS := $(wildcard tests/unit tests/server tests/gateway tests/journeys)
# one process for the tests of servers, one for the unit tests
PARALLEL := -p tests.workers --numprocesses 2 --max-worker-restart 0

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the Python environment into VENV and the Triton server into TOOLS
	@deploy/setup.sh venv tools

venv:
	@deploy/setup.sh venv

clients:
	@deploy/setup.sh venv clients

demo: setup ## make one picture with a real server: IMAGE=in.png PROMPT="..." MODEL=... LORA=... OUT=... (all optional)
	@$(PY) -m deploy.demo $${IMAGE:+--image "$$IMAGE"} $${PROMPT:+--prompt "$$PROMPT"} \
	    $${MODEL:+--model "$$MODEL"} $${LORA:+--lora "$$LORA"} $${OUT:+--out "$$OUT"}

gallery: setup ## make the README's pictures again, with a new server or SERVER=grpc://host:port
	@$(PY) -m deploy.gallery $${SERVER:+--server "$$SERVER"}

serve: setup ## run the server under its supervisor until Ctrl-C
	@exec $(PY) -m runtime.supervisor

gateway: setup ## run the server and the gateway with fal's protocol until Ctrl-C
	@exec $(PY) -m deploy.gateway

export: venv ## make the graphs of a checkpoint's architectures, without weights: MODEL=folder-or-file ENGINE=openvino|tensorrt
	@$(PY) -m export $${MODEL:+--model "$$MODEL"} $${ENGINE:+--engine "$$ENGINE"} $(ARGS)

test: setup clients ## before each push and in CI: unit, server, gateway and journey tests; 15 minutes on two cores with native bfloat16
	@$(PYTEST) $(PARALLEL) -m "not verify" $(TESTS) $(ARGS)

test-unit: venv ## while you edit: only the unit tests
	@$(PYTEST) -m "not verify" tests/unit $(ARGS)

verify: setup clients ## before a release: every row of every test table; continues an interrupted run, restarts after a source change
	@$(PYTEST) $(PARALLEL) -p tests.passed_rows --passed-rows out/verify $(TESTS) $(ARGS)

soak: setup ## after a change of jobs, stages or the supervisor: hostile requests, kills, a call of 150 s; 25 to 60 minutes, idle machine
	@$(PYTEST) tests/soak -s -o faulthandler_timeout=0 $(ARGS)

bench: setup ## measure all cases, or CASES="...": writes benchmarks/results and the README's table; continues after an interruption
	@$(PY) -m benchmarks $(CASES)

lint: venv ## check style, format and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@deploy/typecheck.sh

lock: venv ## write requirements.lock again (UPGRADE=1: with the newest releases)
	@mkdir -p $(TOOLS) && deploy/lock.sh

stubs: venv ## write the signatures of TensorRT's bindings in typings/ again: after a new call of TensorRT, or for new versions
	@$(PY) -m deploy.tensorrt_stubs

trt-full: venv ## build TensorRT-RTX plans of full size without a GPU, or NAMES="sd15-unet sdxl-unet"
	@$(PY) -m benchmarks.tensorrt.full_size $(NAMES)
	@$(PY) -m benchmarks.tensorrt.table

trt-tiny: venv ## build TensorRT-RTX plans of the tests' tiny networks without a GPU: ten minutes
	@$(PY) -m benchmarks.tensorrt.tiny
	@$(PY) -m benchmarks.tensorrt.table

gpu-check: ## build and check TensorRT plans on an NVIDIA GPU, and time refits and calls: NAMES="sd15 sdxl", RESULT=... names the JSON file
	@python3 -m benchmarks.tensorrt.gpu_check "$${RESULT:-gpu-check.json}" $(NAMES)

gpu-bench: ## measure the torch engine on an NVIDIA GPU, without Triton: RESULT=... names the JSON file
	@python3 -m benchmarks.gpu "$${RESULT:-gpu.json}" --commit "$$(git rev-parse --short=12 HEAD)"

readme: venv ## write the README's generated parts: the tables of settings, metrics, clients and benchmarks
	@$(PY) -m deploy.readme
	@$(PY) -m tests.gateway.clients_table
	@$(PY) -m benchmarks.gpu.table
	@$(PY) -m benchmarks.tensorrt.table
	@$(PY) -m benchmarks.table

clean: ## remove everything that these targets made
	rm -rf $(VENV) $(VENV).log $(VENV).lock $(TOOLS) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info client/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
