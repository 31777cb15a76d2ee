# Two commands do all set-up on a machine with Python 3.11 or newer and pip: `make run` and `make test`.
# A second call installs nothing: the stamps below are newer than pyproject.toml and constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
GPU_PYTHON ?= $(shell command -v $(BIN)/python || command -v python3)
PIP := $(BIN)/pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

.PHONY: run test lint docs bench bench-gpu faults faults-stage clean
.DEFAULT_GOAL := run

run: $(VENV)/.ready  ## photographs in, masks out: PHOTOS=folder (default: sample photographs) ARGS="--dataset folder"
	$(BIN)/gigamask run $(PHOTOS) $(ARGS)

test: $(VENV)/.ready-dev lint  ## linters, types, import rules and the whole suite
	OMP_NUM_THREADS=1 $(BIN)/pytest $(ARGS)

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.ready-dev  ## the pages that are generated, and the site in build/site; fails on a broken link
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --clean --strict

bench: $(VENV)/.ready-dev  ## benchmarks that need no GPU, as JSON lines
	@for bench in $(filter-out %/bench_gpu.py,$(wildcard tests/benchmarks/bench_*.py)); do \
		$(BIN)/python $$bench || exit 1; done

bench-gpu:  ## speed, memory and profile on one NVIDIA GPU; GPU_PYTHON needs torch, numpy, OpenCV and safetensors alone
	PYTHONPATH=. $(GPU_PYTHON) tests/benchmarks/bench_gpu.py $(ARGS)

faults: $(VENV)/.ready-dev  ## thousands of faults upon a dataset, as JSON lines; --s3-faults needs Debian's radosgw
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.harness --faults 1000 --s3-faults 200 $(ARGS)

faults-stage: $(VENV)/.ready-dev  ## workers and the driver of `gigamask masks` killed at random over 100 shards
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.stage $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

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
