# Two commands: `make demo` fits a face to a photograph, `make test` runs the tests. Both set everything up.
PYTHON ?= python3
PHOTO  ?= $(shell .venv/bin/python -c "import importlib.util as u, pathlib as p; print(p.Path(u.find_spec('skimage').origin).parent / 'data' / 'astronaut.png')")
VENV    = .venv/bin

.PHONY: demo test check clean

.venv/.ok: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo]"
	touch $@

.venv/.ok-test: .venv/.ok
	$(VENV)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/.ok
	$(VENV)/facefit $(PHOTO)

test: .venv/.ok-test
	$(VENV)/python -m pytest -q

check: .venv/.ok-test
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

clean:
	rm -rf .venv build *.egg-info
