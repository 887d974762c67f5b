# make demo: set up and run the main job on the embedded data.  make test: set up and pass the tests.  make setup: only set up.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint bench clean

setup: .venv/installed

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "convolab needs Python 3.11 or newer: make setup PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

# A torch that is in .venv already, such as the small build for processors only, is kept.
.venv/installed: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/installed
	rm -rf demo
	$(BIN)/convolab data show digits --out demo/digits.png
	$(BIN)/convolab train shallow_net --data digits --out demo/shallow
	$(BIN)/convolab train simple_convnet --data digits --out demo/simple
	$(BIN)/convolab test demo/shallow
	$(BIN)/convolab test demo/simple
	$(BIN)/convolab runs demo
	$(BIN)/convolab explain chelsea --target "Egyptian cat" --method gradient,smoothgrad,integrated,cam,gradcam,occlusion --out demo/explain
	$(BIN)/convolab fool chelsea --target goldfish,tank,teapot --transfer efficientnet_lite1,efficientnet_lite2 --out demo/fool
	$(BIN)/convolab locate motorcycle_left --target moped --scale 0.5,1 --out demo/locate
	$(BIN)/convolab train simple_convnet --data digits --set "model.channels=[16, 32]" --out demo/two-stages
	$(BIN)/convolab locate --score pasted --net demo/two-stages --out demo/placement
	$(BIN)/convolab study coursework --out demo/coursework
	@echo "look at demo/digits.png, demo/simple/curves.html, demo/simple/confusion.html, demo/explain.png, demo/fool.png,"
	@echo "demo/locate.png, demo/placement.html and demo/coursework/report.html"

test: .venv/installed-dev lint
	$(BIN)/python -m pytest

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

bench: .venv/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	$(BIN)/python benchmarks/training.py

clean:
	rm -rf .venv demo
