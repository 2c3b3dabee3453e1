# `make demo` and `make test` are all that a fresh clone needs; `make help` lists the rest.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin

# The embedded Triton runs with Python 3.10 to 3.12: take the first of these that works. PYTHON=… overrides.
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo "$$python" && break; done)
# Extra arguments of pip. On a machine without a GPU, PyTorch's index of CPU builds saves several GB:
# make demo PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
PIP_ARGS ?=
IMAGES ?=
ARGS ?=

# pip shows its progress on a terminal and is quiet in a pipe.
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(shell [ -t 2 ] || echo --quiet) $(PIP_ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test overload lint format serve clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.demo ## install, export, serve, and classify a few images over gRPC and HTTP (IMAGES='photo.jpg folder/')
	@$(BIN)/python -m deepfake_deploy.demo $(IMAGES)

test: $(VENV)/.dev ## install what the tests need and run them all (ARGS=… goes to pytest)
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev ## formatting, lints and types
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy

overload: $(VENV)/.dev ## what the server does at four times its capacity, for a minute over each protocol
	@$(BIN)/python loadtests/overload.py $(ARGS)

format: $(VENV)/.dev ## format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

serve: $(VENV)/.demo ## serve model_repository/ with the embedded Triton (ARGS=… goes to `deepfake serve`)
	@$(BIN)/deepfake serve $(ARGS)

clean: ## remove the virtual environment and the caches; exported weights stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

# What is installed is marked by a file, newer than what says what to install. A development environment has all of it.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@[ $(VENV)/.dev -nt pyproject.toml ] || { echo 'Installing PyTorch, transformers and Triton into $(VENV); this takes a minute or more' >&2 \
		&& $(PIP_INSTALL) -e '.[cli,export,serve]'; }
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo 'Installing what the tests need into $(VENV); this takes a minute or more' >&2
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/bin/python:
	@[ -n '$(PYTHON)' ] || { echo 'make: no Python 3.10 to 3.12 with venv was found; install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make demo PYTHON=/path/to/python3.12' >&2; exit 1; }
	@'$(PYTHON)' -m venv $(VENV)
