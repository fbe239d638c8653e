# make demo [INPUT=file.fits] [OPTIONS="--option ccd=N2"]   the main job, with a visible result
# make test                                                 lint and tests
# make quick                                                lint and the quick part of the tests
# make test-oldest                                          tests on the oldest dependencies
# make fuzz [CASES=10000] [SEED=1]                          damaged files through every reader
# All set up virtual environments of their own; they need Python 3.11 or newer, and make.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
INPUT ?=
OPTIONS ?=
CASES ?= 10000
SEED ?= 1
BIN := $(VENV)/bin
# Two processes: some tests start clusters of their own, of two more.
PYTEST := -m pytest -q -n 2 --dist worksteal
OLDEST := .venv-oldest
LOWER_BOUNDS := import tomllib; \
	project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(" ".join(project["dependencies"]).replace(">=", "=="))

.PHONY: demo test quick test-oldest fuzz lint clean

demo: $(VENV)/.plot
	mkdir -p $(DEMO)
ifeq ($(INPUT),)
	$(BIN)/skyfold simulate $(DEMO)/input.fits --size 2048 --overwrite
endif
	$(BIN)/skyfold grid $(or $(INPUT),$(DEMO)/input.fits) $(OPTIONS) --cell 256 --border 128 --plot $(DEMO)/grid.png
	$(BIN)/skyfold map $(or $(INPUT),$(DEMO)/input.fits) $(DEMO)/output.fits $(OPTIONS) \
		--mapper background --set trim=False --cell 256 --border 128 --reducer feather \
		--picture $(DEMO)/before_after.png --overwrite
	$(BIN)/skyfold simulate-run $(DEMO)/fgcm_run --overwrite
	$(BIN)/skyfold products $(DEMO)/fgcm_run $(DEMO)/products --pictures $(DEMO) --overwrite
	@echo "look at before_after.png, grid.png, focal_plane.png and transmissions.png in $(DEMO)/;"
	@echo "the exposure is $(DEMO)/output.fits, the products are in $(DEMO)/products/"

test: lint
	$(BIN)/python $(PYTEST)

quick: lint
	$(BIN)/python $(PYTEST) -m "not slow"

# Core dependencies at their lower bounds, extras as they come; deprecations are no errors here.
test-oldest:
	$(MAKE) $(OLDEST)/.test VENV=$(OLDEST) PINS="$$($(PYTHON) -c '$(LOWER_BOUNDS)')"
	$(OLDEST)/bin/python $(PYTEST) -m "not slow" -W default::DeprecationWarning

# Ends with a table of damages and verdicts; fails at a hang, a crash or an error without a name.
fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz.run --cases $(CASES) --seed $(SEED)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "skyfold needs Python 3.11 or newer; this is $(PYTHON) " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$*]' $(PINS)
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(DEMO)
