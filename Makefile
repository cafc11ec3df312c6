# Every target installs what it needs and is quick when nothing changed. `make help` lists them.
#
# Settings: Torch_DIR=<libtorch>/share/cmake/Torch (your own LibTorch; also read from the environment),
#           JOBS=N (compile jobs), PYTHON=python3 (makes .venv), QUICK=1 (a small demo).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

JOBS ?= $(shell nproc)
PYTHON ?= python3
export PYTHON
BUILD := build
VENV := .venv
PY := $(VENV)/bin/python

# With a LibTorch of one's own a build needs no virtual environment.
ifdef Torch_DIR
TORCH_FLAGS := -DTorch_DIR=$(Torch_DIR)
TORCH_READY :=
else
TORCH_FLAGS :=
TORCH_READY := venv
endif

ifeq ($(QUICK),1)
DEMO_STUDY := experiments/demo/study_quick.json
DEMO_RUN := runs/demo-quick
else
DEMO_STUDY := experiments/demo/study.json
DEMO_RUN := runs/demo
endif

.PHONY: build
build: $(BUILD)/build.ninja ## the program, build/laptopdiff, and its tests
	@cmake --build $(BUILD) -j $(JOBS)

# ninja configures again by itself when a CMake file changes; what it cannot see is listed here.
$(BUILD)/build.ninja: CMakePresets.json $(BUILD)/.packages-ready $(if $(Torch_DIR),always,) | $(TORCH_READY)
	@cmake --preset release $(TORCH_FLAGS)
	@touch $@
.PHONY: always

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: test test-fast
test: build venv ## all tests: doctest and parity; the last line is `N passed, N failed`
	@$(PY) tests/run.py --build $(BUILD)
test-fast: build venv ## the tests that are not marked slow
	@$(PY) tests/run.py --build $(BUILD) --fast

.PHONY: test-asan
test-asan: $(BUILD)/.packages-ready $(TORCH_READY) ## the torch-free tests under address and UB sanitizers
	@cmake --preset asan $(TORCH_FLAGS) >/dev/null
	@cmake --build build-asan -j $(JOBS) --target laptopdiff_core_tests
	@python3 tests/run.py --build build-asan --kinds core

# FUZZ_SECONDS=N (of each target), FUZZ_TARGETS="json image" (default: all)
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
.PHONY: fuzz
fuzz: $(BUILD)/.packages-ready $(BUILD)/.fuzz-packages-ready ## libFuzzer on the parsers, FUZZ_SECONDS=60 each, two at a time
	@cmake --preset fuzz >/dev/null
	@cmake --build build-fuzz -j $(JOBS) --target fuzz
	@python3 tests/fuzz/run.py --build build-fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

.PHONY: test-clients
test-clients: build venv ## our exports in other programs (stable-diffusion.cpp, built once; needs about 12 GiB of memory)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r third_party/requirements-clients.txt
	@$(PY) -m pytest -q tests/clients

.PHONY: demo
demo: build venv $(BUILD)/.demo-packages-ready ## the study on a small model, to runs/demo/report.html (QUICK=1: smaller)
	$(PY) experiments/demo/data.py -o data/fashion-mnist
	$(BUILD)/laptopdiff sweep $(DEMO_STUDY) -o $(DEMO_RUN)
	$(BUILD)/laptopdiff report $(DEMO_RUN) -o $(DEMO_RUN)/report.html --overwrite

.PHONY: bench
bench: build venv ## the benchmarks of experiments/bench
	@shopt -s nullglob; scripts=(experiments/bench/*.sh experiments/bench/*.py); \
	if [ $${#scripts[@]} -eq 0 ]; then echo "no benchmark in experiments/bench" >&2; exit 1; fi; \
	for script in "$${scripts[@]}"; do \
	  echo "== $$script"; \
	  case $$script in *.py) $(PY) "$$script" ;; *) bash "$$script" ;; esac; \
	done

.PHONY: lint lint-full format
lint: build-lint/build.ninja $(BUILD)/.lint-packages-ready ## clang-format on all, clang-tidy on the torch-free sources
	@cmake build-lint >/dev/null # sources that came or went
	@python3 third_party/lint.py --build build-lint -j $(JOBS)
lint-full: build-lint/build.ninja $(BUILD)/.lint-packages-ready ## the same with clang-tidy on every source (long)
	@cmake build-lint >/dev/null
	@python3 third_party/lint.py --build build-lint -j $(JOBS) --full
# Only configured: a build with a command for each source, as clang-tidy and editors want it.
build-lint/build.ninja: CMakePresets.json $(BUILD)/.packages-ready $(if $(Torch_DIR),always,) | $(TORCH_READY)
	@cmake --preset lint $(TORCH_FLAGS) >/dev/null
	@touch $@
format: $(BUILD)/.lint-packages-ready ## rewrite the sources as clang-format wants them
	@python3 third_party/lint.py --format

.PHONY: check-cuda
check-cuda: $(BUILD)/.packages-ready ## compile and link the whole CUDA build (no GPU needed; downloads several GB once)
	@third_party/venv.sh .venv-cuda third_party/requirements-cuda.txt torch
	@third_party/check_cuda.sh .venv-cuda $(JOBS)

.PHONY: deps-bundle
deps-bundle: ## fill .deps/ with the header packages, for machines without them
	@third_party/deps_bundle.sh

.PHONY: venv
venv: $(BUILD)/.packages-ready ## the virtual environment .venv (torch, and Python for parity tests)
	@third_party/venv.sh $(VENV) third_party/requirements.txt torch diffusers transformers safetensors scipy PIL pytest xdist

.PHONY: clean
clean: ## remove the build folders (.venv, data and runs stay)
	rm -rf build build-asan build-cpu build-cuda build-lint build-fuzz

$(BUILD)/.packages-ready: third_party/packages.sh
	@third_party/packages.sh build
	@mkdir -p $(BUILD) && touch $@
$(BUILD)/.%-packages-ready: third_party/packages.sh
	@third_party/packages.sh $*
	@mkdir -p $(BUILD) && touch $@
