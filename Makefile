# Two commands do all the set-up on a machine with Python, make and git:
#   make demo    the main job on made data: synth, train, tune, test, about 8 minutes
#   make test    the tests, without torch
PYTHON ?= python3
BIN := .venv/bin
# The registry's build for the CPU; a plain torch wheel is gigabytes. Parity tests only.
TORCH ?= torch==2.13.0

.PHONY: install install-test install-parity demo test test-slow test-long lint format docs bench \
	bench-gpu tensorboard clean

install: .venv/.core
install-test: .venv/.test
install-parity: .venv/.parity

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/.core: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/.test: pyproject.toml .venv/.core
	$(BIN)/python -m pip install --quiet --editable '.[cluster,skeletons,waterz,viz,s3,nifti,blosc2,dev]'
	@touch $@

.venv/.parity: .venv/.test
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[parity,servers]'
	@touch $@

demo: .venv/.core
	$(BIN)/python -m nisbjax.launch --config=configs/demo.py --mode=demo $(ARGS)

# Most of the tests' time is compilation; what XLA does not optimise is as right, and the
# slow tests run what users run.
test: .venv/.test
	XLA_FLAGS="--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0" \
		$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal $(ARGS)

test-slow: .venv/.parity
	$(BIN)/python -m pytest -m "slow and not long" --numprocesses=2 --dist=worksteal $(ARGS)

# All kills of the campaigns, all sizes of the parity, memory along every axis: hours.
test-long: .venv/.parity
	$(BIN)/python -m pytest -m "slow and long" --numprocesses=2 --dist=worksteal $(ARGS)

lint: .venv/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: .venv/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The page of keys, from the tables of nisbjax/keys.
docs: .venv/.core
	$(BIN)/python -m nisbjax.keys.page > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md

bench: .venv/.parity
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

# On a machine with a GPU. It installs nothing: by .venv where there is one (pip install -e
# '.[cuda]' into it), else by a Python that has jax for the GPU.
bench-gpu:
	JAX_PLATFORMS=cuda,cpu $(or $(wildcard $(BIN)/python),$(PYTHON)) tests/gpu/bench.py $(ARGS)

tensorboard: .venv/.test
	$(BIN)/tensorboard --bind_all=false --host=127.0.0.1 --logdir=$(or $(RUN),outputs)

clean:
	rm -rf .venv outputs
