# make sweep   set up, run the default sweep, say where the results are
# make test    set up, run the tests
# make lint    set up, check style and types

PYTHON ?= python3
BIN := .venv/bin
COMPILE = $(BIN)/python -m compileall -qq -j 0 -x /tests/ .venv/lib || true

.PHONY: sweep test lint clean
.DELETE_ON_ERROR:

sweep: .venv/core
	$(BIN)/neuralcodec sweep experiments/default.toml

# One thread per process, and one process per core: together they are faster than the threads.
test: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The two stamps are the two sets of packages; each is made again when a list of packages changes.
# All cores compile the packages' modules afterwards, where pip would use one; some packages hold
# templates that are no Python, which do no harm.
.venv/core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable .
	$(COMPILE)
	touch $@

.venv/dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[all,dev]'
	$(COMPILE)
	touch .venv/core $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
