# Two commands: `make demo` fits a face to a photograph, `make test` runs the tests. Both set everything up.
# PHOTO=my.jpg fits another photograph, ARGS="--face all" passes options on.
PYTHON ?= python3
VENV    = .venv/bin
PIP     = $(VENV)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PORTRAIT = $(shell $(VENV)/python -c "import importlib.util as u, pathlib as p; print(p.Path(u.find_spec('skimage').origin).parent / 'data' / 'astronaut.png')")
PHOTO  ?= $(PORTRAIT)
ARGS   ?=

.PHONY: demo test check clean

.venv/.ok: pyproject.toml constraints.txt
	@echo "Setting up .venv with pinned versions (PyTorch and dlib's landmark file are large: a few minutes, once)"
	$(PYTHON) -m venv .venv
	$(PIP) -e ".[demo]"
	@touch $@

.venv/.ok-test: .venv/.ok
	@echo "Adding what the tests and benchmarks need"
	$(PIP) -e ".[dev]"
	@touch $@

demo: .venv/.ok
	$(VENV)/facefit "$(PHOTO)" $(ARGS)

test: .venv/.ok-test
	$(VENV)/python -m pytest -q

check: .venv/.ok-test
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

clean:
	rm -rf .venv build *.egg-info
