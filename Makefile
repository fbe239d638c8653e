# make demo [INPUT=file.fits] [OPTIONS="--option ccd=N2"]   the main job, with a visible result
# make test                                                 lint and tests
# Both set up their own virtual environment; they need Python 3.11 or newer, and make.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
INPUT ?=
OPTIONS ?=
BIN := $(VENV)/bin

.PHONY: demo test lint clean

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
	$(BIN)/python -m pytest -q

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/.%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "skyfold needs Python 3.11 or newer; this is $(PYTHON) " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
