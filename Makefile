# Main commands: `make quickstart` and `make test`. Both set up first. They need make, and Python 3.11, 3.12 or 3.13
# with venv and pip.

# The Python that creates $(VENV). Empty: the newest supported one that runs (tools/make_venv.sh).
PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
# Set up again only when the installed packages would change. The stamp's name contains a checksum of the requirements.
# File times are not compared: in a fresh clone they are all new. RUN: for runs. DEV: for runs, tests and checks.
INSTALLED := $(shell cat pyproject.toml constraints.txt Makefile | cksum | cut -d' ' -f1)
DEV_PACKAGE := .[dev,yolo]# a comma would separate arguments of `call`
RUN := $(VENV)/.setup-run-$(INSTALLED)
DEV := $(VENV)/.setup-dev-$(INSTALLED)
# tests/conftest.py orders the files, so that no long one starts at the very end.
# Don't replace a worker that crashed: with `loadfile`, xdist 3.8 then hangs at the end (pytest-dev/pytest-xdist#1378).
# Three workers for two cores, because tests of Ray and of servers wait; the fast part computes. Containers often forbid
# compiled files (PYTHONDONTWRITEBYTECODE); here every worker, actor and subprocess would compile everything again.
WORKERS := 3
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart=0 --durations=25

.PHONY: setup quickstart test test-all test-fast coverage lint types format docs docs-version constraints lock audit pin-images images bench-smoke clean
# Both set-ups write into the same folder.
.NOTPARALLEL:

# mmaction2, mmengine and ultralytics pull in OpenCV builds that need display libraries (libGL). Replace them with the
# headless build in the same version. All builds share one folder, so removing any breaks the others: always reinstall
# the headless one. At last, make sure that torchvision can be imported, or is absent: Ultralytics and timm require it,
# an index may have it only for another build of torch, and transformers then can't be imported.
define install
	test -x $(BIN)/python || tools/make_venv.sh $(VENV) $(PYTHON)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '$(1)'
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-contrib-python opencv-python-headless
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall --constraint constraints.txt opencv-contrib-python-headless
	$(BIN)/python -m vtcav_ray.models.torchvision_fit
	rm -f $(VENV)/.setup-*
endef

# `call` splits its arguments at commas, but not those of a variable.

$(RUN):
	$(call install,.[yolo])
	touch $@

# A set-up for tests also works for runs, so it writes both stamps.
$(DEV):
	$(call install,$(DEV_PACKAGE))
	touch $(RUN) $@

setup: $(DEV)

quickstart: $(RUN)
	$(BIN)/vtcav run configs/quickstart.yaml

test: setup
	$(PYTEST) -m "not full"

# Also the networks at full size.
test-all: setup
	$(PYTEST)

test-fast: WORKERS := 2
test-fast: setup
	$(PYTEST) --hypothesis-profile=quick -m "not slow and not browser and not full"

# The share of the package's lines that the fast part runs in its own processes.
coverage: WORKERS := 2
coverage: setup
	$(PYTEST) --hypothesis-profile=quick -m "not slow and not browser and not full" --cov --cov-report=term

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Build the pages of docs/, and the API from docstrings, into build/site.
docs: setup
	$(BIN)/mkdocs build --strict

# Add the pages of this version to the branch gh-pages, beside those of earlier versions. It pushes nothing. mike is in
# the extra `docs`.
docs-version: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'mike>=2.1,<3'
	$(BIN)/mike deploy --update-aliases "$$($(BIN)/python -c 'import vtcav_ray; print(vtcav_ray.__version__)')" latest
	$(BIN)/mike set-default latest

# Record the installed versions, after the tests passed. Leave out local version tags (torch's +cpu), and the CUDA
# libraries, which torch requires in exact versions.
constraints: setup
	echo '# What was tested together, on Python 3.11, 3.12 and 3.13, Linux x86-64. `make setup` installs these.' > constraints.txt.new
	$(BIN)/python -m pip freeze --all --exclude-editable | sed -e 's/+[a-z0-9.]*$$//' \
		| grep -Ev '^(opencv|pip=|triton=|cuda-|nvidia-[^m])' >> constraints.txt.new
	grep '^opencv' constraints.txt >> constraints.txt.new
	mv constraints.txt.new constraints.txt

# Write the lock files of the containers: the versions of constraints.txt, with hashes.
lock: setup
	$(BIN)/python tools/lock.py

# List known vulnerabilities of the locked packages. Needs the package index's advisories.
audit: setup
	$(BIN)/python tools/audit.py

# Update the digests of the containers' base images. Needs access to their registry.
pin-images: setup
	$(BIN)/python tools/pin_images.py

# Build both container images. The base images must have digests.
BUILDER ?= podman
IMAGE ?= registry.example.com/vtcav-ray:0.1.0
images: setup
	$(BIN)/python tools/pin_images.py --check
	for kind in cpu cuda; do \
		$(BUILDER) build $$(sed -n 's/^[A-Z].*/--build-arg &/p' cluster/images.env) -f cluster/Containerfile.$$kind \
			-t $(IMAGE)-$$kind . || exit 1; \
	done

# Run every benchmark at a tiny size. Compare ratios, never seconds, with the committed JSON, and check exact results.
bench-smoke: setup
	$(BIN)/python benchmarks/smoke.py

clean:
	rm -rf $(VENV) runs build dist *.egg-info
