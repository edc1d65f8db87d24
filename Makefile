PYTHON ?= python3
EXTRAS ?=
RUN = .venv/bin/python
PYTEST = $(RUN) -m pytest -n auto --maxprocesses=4 --dist=worksteal

quickstart: .venv/with-experiments
	$(RUN) -m experiments quickstart

comma := ,
# pyright has one thread: it runs beside the tests. No phase of a test may take 20 s; shared machines are up to twice as slow.
test: .venv/with-$(if $(EXTRAS),test$(comma)$(EXTRAS),test)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m pyright & types=$$!; \
	$(PYTEST) $(if $(CI),--fail-slower-than=40); tests=$$?; \
	wait $$types || { echo "pyright has found errors: see above"; exit 1; }; \
	exit $$tests

# Also the tests marked "exhaustive", which take long, and all with XLA's default code generation (see tests/conftest.py).
test-all: .venv/with-$(if $(EXTRAS),test$(comma)$(EXTRAS),test)
	XLA_FLAGS= $(PYTEST) -m ""

# The suite, without the extra peers, on the lowest versions that pyproject.toml allows and on the newest that the package
# index has. Each lane makes an environment of its own, and first prints the versions in it.
RESOLUTION_lowest = lowest-direct
RESOLUTION_newest = highest
test-lowest test-newest: RUN = $(@:test-%=.venv-%)/bin/python
test-lowest test-newest: test-%:
	$(PYTHON) -m venv --clear .venv-$*
	$(RUN) -m pip install --quiet --disable-pip-version-check uv
	$(RUN) -m uv pip install --quiet --python $(RUN) --resolution=$(RESOLUTION_$*) --editable ".[test]"
	$(RUN) -m uv pip freeze --python $(RUN) --exclude-editable
	$(PYTEST)

reproduce: .venv/with-experiments
	$(RUN) -m experiments reproduce --workdir=runs/reproduce

# The pages as a site in build/docs, to be opened as files; a warning is an error.
docs: .venv/with-docs
	$(RUN) -m sphinx -q -W --keep-going -b html -c docs . build/docs

lint: .venv/with-test
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

# One file a set of extras. A .venv of another Python than $(PYTHON) is made anew. Left to itself, pip compiles twenty thousand
# files on one core; a few are templates, which do not compile.
.venv/with-%: .venv/of-$(notdir $(PYTHON)) pyproject.toml constraints.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable ".[$*]"
	@$(RUN) -m compileall -qq -j 0 .venv/lib || true
	@touch $@

.venv/of-$(notdir $(PYTHON)):
	$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("attn needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: try PYTHON=python3.12 make ..." % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv
	@touch $@

.PHONY: quickstart test test-all test-lowest test-newest reproduce docs lint
.PRECIOUS: .venv/of-% .venv/with-%
