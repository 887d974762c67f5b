# make demo: set up and run the main job on the embedded data.  make setup: only set up.
# Three rings of tests:  make check (a minute)  <  make test (all that a change must pass)  <  make long (the rest).
PYTHON ?= python3
BIN := .venv/bin
# Compiled modules are kept, whatever the shell says: without them each of the many processes compiles all that it imports.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest
FAST := not slow and not timing and not long

.PHONY: setup demo check test shapes long flaky soak fuzz matrix lint types fast bench bench-quick architecture notebooks docs gallery clean

setup: .venv/installed

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "convolab needs Python 3.11 or newer: make setup PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

# A torch that is in .venv already, such as the small build for processors only, is kept.
.venv/installed: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[most]'
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/installed .venv/installed-docs

.venv/installed-docs: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[most,docs]'
	@touch $@ .venv/installed

demo: .venv/installed
	rm -rf demo
	$(BIN)/convolab data show digits --out demo/digits.png
	$(BIN)/convolab train shallow_net --data digits --out demo/shallow
	$(BIN)/convolab train simple_convnet --data digits --out demo/simple
	$(BIN)/convolab test demo/shallow
	$(BIN)/convolab test demo/simple
	$(BIN)/convolab runs demo
	$(BIN)/convolab explain chelsea --target "Egyptian cat" --method gradient,smoothgrad,integrated_gradients,gradcam --out demo/explain
	$(BIN)/convolab fool chelsea --target goldfish,tank,teapot --victims efficientnet_lite1,efficientnet_lite2 --out demo/fool
	$(BIN)/convolab locate motorcycle_left --target moped --scale 0.5,1 --out demo/locate
	$(BIN)/convolab train simple_convnet --data digits --set "model.channels=[16, 32]" --out demo/two-stages
	$(BIN)/convolab locate-score synthetic --net demo/two-stages --out demo/alignment
	$(BIN)/convolab study coursework --out demo/coursework
	@echo "look at demo/digits.png, demo/simple/curves.html, demo/simple/confusion.html, demo/explain.png, demo/fool.png,"
	@echo "demo/locate.png, demo/alignment.html and demo/coursework/report.html"

# The inner ring: style, types and the fast tests, side by side.
check: .venv/installed-dev
	@$(MAKE) --no-print-directory --output-sync -j3 lint types fast

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: .venv/installed-dev
	$(BIN)/basedpyright

# In one process: the type checker has the other core, and each of two would collect all tests.
fast: .venv/installed-dev
	$(PYTEST) -m "$(FAST)" --ignore=tests/oracles tests

# What a change must pass. The tests of a file run one after another, because they share clusters and servers.
test: .venv/installed-dev lint types
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

# The shapes that signatures state, checked at every call while the fast tests run.
shapes: .venv/installed-dev
	CONVOLAB_SHAPE_CHECKS=1 $(PYTEST) -n 2 --dist worksteal -m "$(FAST)" --ignore=tests/oracles tests

# The outer ring: full simulations, what takes minutes, and more of the fuzzing.
long: .venv/installed-dev shapes
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m long tests
	CONVOLAB_FUZZ=100 $(PYTEST) tests/test_fuzz.py

# The tests that depend on the pace of other processes: 20 times idle, and 20 times beside two busy loops.
flaky: .venv/installed-dev
	$(BIN)/python tests/flaky.py --times 20

# Two commands at once on one folder, 200 rounds of each pair, and half an hour of clicking on the page: hours.
soak: .venv/installed-dev
	CONVOLAB_SOAK_MINUTES=$${CONVOLAB_SOAK_MINUTES:-30} $(PYTEST) tests/app/test_soak.py
	CONVOLAB_ROUNDS=200 $(PYTEST) -m "timing and not long" tests/test_concurrency.py

# Random damage and random input, much more of it than `make test` tries.
fuzz: .venv/installed-dev
	CONVOLAB_FUZZ=500 $(PYTEST) tests/test_fuzz.py

# The fast tests with each Python and torch that this machine can install.
matrix:
	$(PYTHON) tests/matrix.py

bench: .venv/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	$(BIN)/python benchmarks/training.py $(if $(DATA_DIR),--data-dir $(DATA_DIR))

# The ratio to the best peer in nine questions, in minutes; DATA_DIR is the folder that holds cifar-10-batches-py.
bench-quick: .venv/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check 'ray[tune]>=2.40' 'skorch>=1.1' 'optuna>=4.0'
	$(BIN)/python benchmarks/quick.py $(if $(DATA_DIR),--data-dir $(DATA_DIR))

architecture: .venv/installed-dev
	$(BIN)/python docs/architecture.py

# The homework's notebooks, from src/convolab/handin/source; `notebooks/make.py --execute` runs the solutions.
notebooks: .venv/installed-dev
	$(BIN)/python notebooks/make.py

# The pages as a site that needs no network, in site/; its links are checked.
docs: .venv/installed-docs
	$(BIN)/python docs/site/build.py

# The figures of the pages, drawn by the commands below them: minutes.
gallery: .venv/installed
	$(BIN)/python docs/gallery.py

clean:
	rm -rf .venv .matrix demo site build
