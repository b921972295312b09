# make demo   a fresh machine with python3, python3-venv and make: install, and optimise one C file
# make test   install what tests and training need, and run the tests, a file a core (SLOW=1 for the long ones too,
#             one after another: some measure)
# make lint   style and types
# make clean  remove what was installed and built

PYTHON ?= python3
BIN := .venv/bin
TORCH := torch==2.13.0
# Other LLVMs the tests run against, beside the bundled one.
LLVM_VERSIONS := 18.1.8 22.1.8

demo: .venv/core.stamp
	$(BIN)/secondpass optimize examples/codec.c

test: .venv/dev.stamp llvm-versions
	$(BIN)/pytest $(if $(SLOW),-m "slow or not slow",-n auto --dist loadfile)

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

venv: .venv/dev.stamp

llvm-versions: $(LLVM_VERSIONS:%=build/llvm/%/llvm.stamp)

clean:
	rm -rf .venv build/llvm

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/core.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/dev.stamp: .venv/core.stamp
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[dev,train,corpus,evaluate,report,ray]'
	touch $@

# An environment of its own each: the wheel's library finds its C++ library through links that the
# environment's first Python start makes.
build/llvm/%/llvm.stamp: | .venv/core.stamp
	$(PYTHON) -m venv --without-pip build/llvm/$*
	$(BIN)/pip --python build/llvm/$*/bin/python install --quiet 'karellen-llvm-core==$*.*'
	build/llvm/$*/bin/python -c ''
	touch $@

.PHONY: demo test lint venv llvm-versions clean
