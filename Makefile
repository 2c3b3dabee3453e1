# `make demo` and `make test` are all that a fresh clone needs; `make help` lists the rest.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin

# Makes the virtual environment; empty looks for one.
PYTHON ?=
# Extra arguments of pip. On a machine without a GPU, PyTorch's index of CPU builds saves several GB:
# make demo PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
PIP_ARGS ?=
IMAGES ?=
ARGS ?=
# Each has a Triton of its own; most of a test's time is waiting for one. TEST_PROCESSES=0: all in one, for a debugger.
TEST_PROCESSES ?= 2
PYTEST = $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
# What `make serve` listens on.
HOST ?= grpc://127.0.0.1:8001,http://127.0.0.1:8000

# pip shows its progress on a terminal and is quiet in a pipe.
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(shell [ -t 2 ] || echo --quiet) $(PIP_ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all faults dashboard observe overload loadtest capacity tune ceiling gpu peers referee cost decoding figures lint format serve scan clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.demo ## install, export, serve, and classify a few images over gRPC and HTTP (IMAGES='photo.jpg folder/')
	@$(BIN)/python -m deepfake_cli demo $(IMAGES)

test: $(VENV)/.dev ## install what the tests need and run those that answer quickly: 5 minutes (ARGS=… goes to pytest)
	@$(PYTEST) -m 'not slow' $(ARGS)

test-all: $(VENV)/.dev ## run all tests, with those that kill, drain, install and drive a browser: 15 minutes
	@$(PYTEST) $(ARGS)

lint: $(VENV)/.dev ## formatting, lints, types, and that imports run down
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

faults: $(VENV)/.dev ## break a real server five ways, and see which alerts fire (needs Debian's prometheus)
	@$(BIN)/python -m loadtests.observability.faults $(ARGS)

dashboard: $(VENV)/.dev ## what the dashboard shows under a light, a full and too much load, as a table (needs Debian's prometheus)
	@$(BIN)/python -m loadtests.observability.dashboard $(ARGS)

overload: $(VENV)/.dev ## what the server does at four times its capacity, for a minute over each protocol
	@$(BIN)/python -m loadtests.studies.overload $(ARGS)

loadtest: $(VENV)/.dev ## Locust's web page on port 8089, for the server at HOST=… (ARGS=… goes to locust)
	@$(BIN)/python -m locust -f loadtests/locustfile.py --web-host 127.0.0.1 --host '$(HOST)' $(ARGS)

capacity: $(VENV)/.dev ## images per second that a replica holds, what limits it, replicas to run (ARGS='--slo-p95-ms 1000 --traffic 200')
	@$(BIN)/python -m loadtests.capacity $(ARGS)

peers: $(VENV)/.dev $(VENV)/peers/.installed ## the same checkpoint on Triton, FastAPI, LitServe and BentoML, side by side: half an hour at most
	@$(BIN)/python -m loadtests.studies.peers --environment $(VENV)/peers $(ARGS)

referee: $(VENV)/.dev $(VENV)/perf_analyzer/bin/perf_analyzer ## NVIDIA's perf_analyzer against Locust on the same server: do both measure the same?
	@$(BIN)/python -m loadtests.studies.referee --perf-analyzer $(VENV)/perf_analyzer/bin/perf_analyzer $(ARGS)

tune: $(VENV)/.dev ## what batch size, queue delay, instances, threads and precision are worth here (10 minutes)
	@$(BIN)/python -m loadtests.studies.tune $(ARGS)

ceiling: $(VENV)/.dev ## the served model beside the bare one and the model card's own code, in turns
	@$(BIN)/python -m loadtests.studies.ceiling $(ARGS)

gpu: $(VENV)/.dev ## the model on a GPU, bare and served over gRPC (not run yet: no GPU was at hand)
	@$(BIN)/python -m loadtests.studies.gpu $(ARGS)

cost: $(VENV)/.dev ## the client's processor time beside bare tritonclient, at a server that runs (`make serve`)
	@$(BIN)/python -m loadtests.studies.cost $(ARGS)

decoding: $(VENV)/.dev ## what a photo costs to decode, exactly and fast, and what fast decoding changes
	@$(BIN)/python -m loadtests.studies.decoding $(ARGS)

figures: $(VENV)/.dev ## write the figures of loadtests/results into the README
	@$(BIN)/python -m loadtests.summary $(ARGS)

format: $(VENV)/.dev ## format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

observe: $(VENV)/.dev ## the embedded Triton beside a Prometheus with the alerts, and a short load (needs Debian's prometheus)
	@$(BIN)/python -m loadtests.observability.observe $(ARGS)

serve: $(VENV)/.demo ## serve model_repository/ with the embedded Triton (ARGS=… goes to `deepfake serve`)
	@$(BIN)/deepfake serve $(ARGS)

scan: $(VENV)/scan/bin/checkov ## security scan of the Kubernetes overlay gpu (needs kubectl)
	@kubectl kustomize deploy/kubernetes/overlays/gpu > $(VENV)/scan/gpu.yaml
	@$(VENV)/scan/bin/checkov --config-file deploy/kubernetes/checkov.yaml --framework kubernetes --file $(VENV)/scan/gpu.yaml \
		--skip-download --compact --quiet

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

# On its own: its hundred packages need not agree with ours.
$(VENV)/scan/bin/checkov: | $(VENV)/bin/python
	@$(BIN)/python -m venv $(VENV)/scan
	@$(VENV)/scan/bin/python -m pip install --disable-pip-version-check --quiet checkov==3.3.30

# In a folder of its own: of this version of the client library only the binary inside it is wanted (Linux x86-64).
$(VENV)/perf_analyzer/bin/perf_analyzer: | $(VENV)/bin/python
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --upgrade --target $(VENV)/perf_analyzer tritonclient==2.50.0

# On their own as well: what they need conflicts with what is here. One that does not install is said, and tried again next time.
$(VENV)/peers/.installed: loadtests/studies/peers/requirements.txt | $(VENV)/bin/python
	@echo 'Installing the servers to compare with into $(VENV)/peers; this takes minutes' >&2
	@$(BIN)/python -m venv $(VENV)/peers
	@install() { $(VENV)/peers/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) "$$@"; }; \
	if install -r $< 2>/dev/null; then touch $@; else sed 's/ *#.*//; /^$$/d' $< | while read -r each; do \
		reason=$$(install "$$each" 2>&1) || echo "peers: $$each does not install ($${reason##*$$'\n'}); going on without it" >&2; done; fi

$(VENV)/bin/python:
	@python=$$(deploy/find_python.sh $(VENV)/python '$(PYTHON)') && "$$python" -m venv $(VENV)
