# Every target does its own set-up; only Python 3.11 or later is needed. `make` alone lists them.
PYTHON ?= python3
PIP_OPTIONS ?=
# https://download.pytorch.org/whl/cpu takes PyTorch's small CPU build.
TORCH_INDEX ?=
SCALE ?= laptop
SEED ?= 0
OUT ?= runs/$(SCALE)
RESULTS ?= runs/results
BENCH_OPTIONS ?=

# Training asks for the same large blocks of memory again and again; glibc would hand each back and fetch it anew.
export MALLOC_MMAP_THRESHOLD_ ?= 8589934592
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592

.PHONY: help tldr results release test test-fast test-gpu lint format lab pictures bench bench-gpu scaling trl-oracle nbgrader vllm clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

.venv/.installed: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet $(PIP_OPTIONS) -c constraints.txt torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	.venv/bin/python -m pip install --quiet $(PIP_OPTIONS) -c constraints.txt -e ".[dev]"
	touch .venv/.installed

tldr: .venv/.installed  ## run the whole of RLHF and write a report (SCALE=laptop, SEED=0, OUT=runs/laptop)
	.venv/bin/rlhf-lab tldr --scale $(SCALE) --seed $(SEED) --out $(OUT)

results: .venv/.installed  ## reproduce docs/results.md (about an hour and a half)
	.venv/bin/rlhf-lab results --out $(RESULTS)

release: .venv/.installed  ## make the students' notebooks from the solutions
	.venv/bin/rlhf-lab release

test: .venv/.installed  ## run every test that this machine can run, and list what was left out
	.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone"
	.venv/bin/python -m pytest -m alone

test-fast: .venv/.installed  ## run the tests that take seconds
	.venv/bin/python -m pytest -m "not slow and not oracle"

test-gpu: .venv/.installed  ## run the tests that need a GPU, and no others
	RLHF_LAB_REQUIRE=gpu .venv/bin/python -m pytest -m gpu

lint: .venv/.installed  ## check style, types and layers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/lint-imports

format: .venv/.installed  ## format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

pictures: .venv/.installed  ## take the pictures of docs/labeling.md (needs Chromium)
	.venv/bin/python -m tests.labeling.screenshots docs/figures/labeling

lab: .venv/.installed  ## open JupyterLab on the notebooks
	.venv/bin/jupyter lab notebooks

.venv-trl/.installed: tests/oracle/requirements.txt
	test -x .venv-trl/bin/python || $(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet $(PIP_OPTIONS) -r tests/oracle/requirements.txt
	touch .venv-trl/.installed

trl-oracle: .venv-trl/.installed  ## install TRL 1.12.0 apart, for the tests that compare with it

.venv-peers/.installed: benchmarks/peers/requirements.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet $(PIP_OPTIONS) -r benchmarks/peers/requirements.txt
	touch .venv-peers/.installed

bench: .venv/.installed .venv-trl/.installed .venv-peers/.installed  ## measure every stage beside its peer, and write docs/performance.md (half an hour)
	.venv/bin/python -m benchmarks.run --out docs/performance.json $(BENCH_OPTIONS)
	.venv/bin/python -m benchmarks.report docs/performance.json

bench-gpu: .venv/.installed .venv-trl/.installed .venv-peers/.installed  ## the same on a GPU at Pythia-1B's shape, in bf16, to docs/performance_gpu.md
	.venv/bin/python -m benchmarks.run --out docs/performance_gpu.json --sizes pythia-1b --dtype bfloat16 $(BENCH_OPTIONS)
	.venv/bin/python -m benchmarks.report docs/performance_gpu.json

scaling: .venv/.installed  ## simulate RLHF on up to 4000 GPUs from docs/performance.json, and write docs/scaling.md (a minute)
	.venv/bin/python -m benchmarks.scaling --out docs/scaling.json

.venv-nbgrader/.installed: tests/course/nbgrader-requirements.txt
	test -x .venv-nbgrader/bin/python || $(PYTHON) -m venv .venv-nbgrader
	.venv-nbgrader/bin/python -m pip install --quiet $(PIP_OPTIONS) -r tests/course/nbgrader-requirements.txt
	touch .venv-nbgrader/.installed

# The wheels that PyPI has of torchvision and its kin are for CUDA, and break Transformers beside a PyTorch for CPUs.
.venv-vllm/.installed: tests/vllm/requirements.txt pyproject.toml
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet $(PIP_OPTIONS) -r tests/vllm/requirements.txt -e .
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch .venv-vllm/.installed

vllm: .venv-vllm/.installed  ## install vLLM apart, for the tests that write with it

nbgrader: .venv-nbgrader/.installed  ## install nbgrader apart, for the tests that grade with it

clean:  ## remove environments and caches, not your runs
	rm -rf .venv .venv-trl .venv-peers .venv-nbgrader .venv-vllm build dist .pytest_cache .ruff_cache
