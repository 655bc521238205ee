# Two commands matter: `make quickstart` and `make test`. Both set up first, and need only Python 3.11, pip and make.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# Set up again only when what is installed would change.
STAMP := $(VENV)/.setup-$(shell cat pyproject.toml constraints.txt Makefile | cksum | cut -d' ' -f1)
# tests/conftest.py says which files go first: none of the long ones should begin at the very end.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25

.PHONY: setup quickstart test test-fast lint types format docs constraints bench-smoke clean

setup: $(STAMP)

# The stamp's name says what was installed. Times of files are not asked: in a fresh clone they are all new.
$(STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# mmaction2, mmengine and ultralytics pull in OpenCV builds that want a screen's libraries (libGL). One build, the
	# one without a screen, takes their place, in the same version. All of them put their files into one folder, so
	# removing any breaks the one that stays: it is written anew, also where it was there already.
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-contrib-python opencv-python-headless
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall --constraint constraints.txt opencv-contrib-python-headless
	rm -f $(VENV)/.setup-*
	touch $@

quickstart: setup
	$(BIN)/vtcav run configs/quickstart.yaml

test: setup
	$(PYTEST)

test-fast: setup
	$(PYTEST) -m "not slow and not browser"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages of docs/, and the API from docstrings, into build/site.
docs: setup
	$(BIN)/mkdocs build --strict

# Write down what is installed now, after its tests passed. Local version tags (torch's +cpu) stay out.
constraints: setup
	echo '# What was tested together, on Python 3.11, Linux x86-64. `make setup` installs these.' > constraints.txt.new
	$(BIN)/python -m pip freeze --exclude-editable | sed -e 's/+[a-z0-9.]*$$//' | grep -v '^opencv' >> constraints.txt.new
	grep '^opencv' constraints.txt >> constraints.txt.new
	mv constraints.txt.new constraints.txt

# Every benchmark at a tiny size: ratios against the committed JSON, never seconds, and what must come out in any case.
bench-smoke: setup
	$(BIN)/python benchmarks/smoke.py

clean:
	rm -rf $(VENV) runs build dist *.egg-info
