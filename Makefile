PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test quick lint docs release clean

# Segment real photographs by example with the bundled checkpoint, offline.
demo: .venv/demo
	$(BIN)/python -m demos.photographs out/demo

# Lint, types, tests. A file belongs to one process, which makes its fixtures once (groups of
# pytest-xdist 3.8 have no effect with pytest 9.2).
test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations 30

# The tests that take a second: no page, server or cluster.
quick: .venv/dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile \
		-m "not slow and not browser and not server and not ray"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Build wheel and sdist into out/dist, and try both in an empty environment.
release: .venv/dev
	.ci/check_release

# The documentation as a site, out/site/index.html; a warning is an error.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[demo]'
	touch $@

.venv/docs: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[docs]'
	touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[dev]'
	touch $@ .venv/demo .venv/docs

clean:
	rm -rf .venv out
