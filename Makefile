# kron2sum. Everything is installed into .venv; only what is missing is installed.
#
#   make help      this list
#   make example   fit, scan and export on example_data/ (results in out/); also what `make` alone does
#   make test      the tests
#   make check     linter, formatting, types, documentation, tests: what CI runs
#   make docs      the documentation, in out/site; a warning is an error
#   make wheel     a wheel in dist/, tried in an empty environment
#   make bench     some of the measurements of docs/benchmarks.md, in minutes
#   make clean     remove .venv, out/ and caches
#
# Another Python: make example PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
INSTALLED := .venv/.installed
TEST_INSTALLED := .venv/.test-installed
DOCS_INSTALLED := .venv/.docs-installed
DATA := example_data
TOP_COLUMNS := CHR,POS,SNPID,EA,EAF,MLOG10P,BETA.height,BETA.weight,BETA.glucose

.PHONY: example help test check lint types docs wheel bench clean
# In the order written, also under -j: installations must not meet, and the tests' summary comes last.
.NOTPARALLEL:

example: $(INSTALLED)
	mkdir -p out
	$(BIN)/kron2sum fit --pheno $(DATA)/phenotypes.csv --covar $(DATA)/covariates.csv \
	    --grm $(DATA)/genotypes.bed --out out/null.npz
	$(BIN)/kron2sum scan --null out/null.npz --geno $(DATA)/genotypes.bed --out out/scan.parquet
	$(BIN)/kron2sum export out/scan.parquet --top 10 --digits 4 --columns $(TOP_COLUMNS)
	@echo
	@echo "out/null.npz      the fitted null model   ($(BIN)/kron2sum export out/null.npz)"
	@echo "out/scan.parquet  every variant's tests   ($(BIN)/kron2sum export out/scan.parquet)"
	@echo "$(DATA)/README.md says which variants have effects, and how large they are."

help:
	@sed -n -e '/^#/!q' -e 's/^# \{0,1\}//p' Makefile

# The test processes share the cores: each gets one BLAS thread.
test check: export OMP_NUM_THREADS = 1
test check: export OPENBLAS_NUM_THREADS = 1
test check: export MKL_NUM_THREADS = 1
# Commands that tests start would compile all modules again and again where the environment says to keep no bytecode.
test check: export PYTHONDONTWRITEBYTECODE =

test: $(TEST_INSTALLED)
	$(BIN)/python -m pytest -n 2

check: lint types docs test

lint: $(TEST_INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TEST_INSTALLED)
	$(BIN)/mypy

docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

wheel:
	packaging/try_wheel.sh $(PYTHON)

bench: $(TEST_INSTALLED)
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' || { \
	    echo "kron2sum needs Python 3.11 to 3.14. Name one: make PYTHON=python3.12"; exit 1; } >&2
	@echo "Making .venv ..."
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	    echo "Python's venv module is incomplete. On Debian and Ubuntu: apt install python3-venv"; exit 1; } >&2

$(INSTALLED): pyproject.toml kron2sum_cli/_version.py | $(BIN)/python
	@echo "Installing kron2sum into .venv ..."
	@$(PIP) --upgrade pip
	@$(PIP) --editable .
	@touch $@

# Most modules of these are never imported (--no-compile): those that are, are compiled then.
$(DOCS_INSTALLED): $(INSTALLED)
	@echo "Installing what the documentation needs into .venv ..."
	@$(PIP) --no-compile --editable '.[docs]'
	@touch $@

$(TEST_INSTALLED): $(INSTALLED)
	@echo "Installing what the tests need into .venv ..."
	@$(PIP) --no-compile --editable '.[test]'
	@touch $@
