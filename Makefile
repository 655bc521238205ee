# Two commands matter: `make quickstart` and `make test`. Both set up first. They need Python 3.11, 3.12 or 3.13 with venv
# and pip, and make.

# The Python that $(VENV) is made with. Empty: the newest supported one that runs (tools/make_venv.sh).
PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
# Set up again only when what is installed would change. The stamp's name says what was installed: times of files are not
# compared, in a fresh clone they are all new. RUN: what a run needs. DEV: that, and what tests and checks need.
INSTALLED := $(shell cat pyproject.toml constraints.txt Makefile | cksum | cut -d' ' -f1)
RUN := $(VENV)/.setup-run-$(INSTALLED)
DEV := $(VENV)/.setup-dev-$(INSTALLED)
# tests/conftest.py says which files go first: none of the long ones should begin at the very end.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25

.PHONY: setup quickstart test test-fast lint types format docs constraints lock audit pin-images images bench-smoke clean
# Both set-ups write into one folder.
.NOTPARALLEL:

# mmaction2, mmengine and ultralytics pull in OpenCV builds that want a screen's libraries (libGL). One build, the one
# without a screen, takes their place, in the same version. All of them put their files into one folder, so removing any
# breaks the one that stays: it is installed again, also where it was there already.
define install
	test -x $(BIN)/python || tools/make_venv.sh $(VENV) $(PYTHON)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '$(1)'
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-contrib-python opencv-python-headless
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall --constraint constraints.txt opencv-contrib-python-headless
	rm -f $(VENV)/.setup-*
endef

$(RUN):
	$(call install,.)
	touch $@

# A set-up for tests serves a run too, so it leaves both stamps.
$(DEV):
	$(call install,.[dev])
	touch $(RUN) $@

setup: $(DEV)

quickstart: $(RUN)
	$(BIN)/vtcav run configs/quickstart.yaml

test: setup
	$(PYTEST)

test-fast: setup
	$(PYTEST) -m "not slow and not browser"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages of docs/, and the API from docstrings, into build/site.
docs: setup
	$(BIN)/mkdocs build --strict

# Write down what is installed now, after its tests passed. Local version tags (torch's +cpu) stay out, and so do the CUDA
# libraries, which torch asks for in exact versions.
constraints: setup
	echo '# What was tested together, on Python 3.11, 3.12 and 3.13, Linux x86-64. `make setup` installs these.' > constraints.txt.new
	$(BIN)/python -m pip freeze --all --exclude-editable | sed -e 's/+[a-z0-9.]*$$//' \
		| grep -Ev '^(opencv|pip=|triton=|cuda-|nvidia-[^m])' >> constraints.txt.new
	grep '^opencv' constraints.txt >> constraints.txt.new
	mv constraints.txt.new constraints.txt

# What the containers install, with hashes: the versions of constraints.txt.
lock: setup
	$(BIN)/python tools/lock.py

# Known vulnerabilities of what the containers install. Needs the package index's advisories.
audit: setup
	$(BIN)/python tools/audit.py

# The digests of the containers' base images, on a machine that reaches their registry.
pin-images: setup
	$(BIN)/python tools/pin_images.py

# Both container images, of base images with a digest.
BUILDER ?= podman
IMAGE ?= registry.example.com/vtcav-ray:0.1.0
images: setup
	$(BIN)/python tools/pin_images.py --check
	for kind in cpu cuda; do \
		$(BUILDER) build $$(sed -n 's/^[A-Z].*/--build-arg &/p' cluster/images.env) -f cluster/Containerfile.$$kind \
			-t $(IMAGE)-$$kind . || exit 1; \
	done

# Every benchmark at a tiny size: ratios against the committed JSON, never seconds, and what must come out in any case.
bench-smoke: setup
	$(BIN)/python benchmarks/smoke.py

clean:
	rm -rf $(VENV) runs build dist *.egg-info
