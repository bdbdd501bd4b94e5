# Every target sets up what it needs: Python >= 3.11, make and pip are enough on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKDIR ?= runs/quickstart
# Every folder with code; an empty one would be an error to mypy. configs is a link into wpauc_jax.
TYPED := $(filter-out tests configs,$(patsubst %/,%,$(sort $(dir $(wildcard */*.py)))))

# Large pages for the memory of a step's arrays, where Linux grants them on request: a tenth of the time on a CPU.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: help venv quickstart test test-slow lint docs format clean

help:
	@echo "make quickstart  MovieLens-100K: SFT, RL with TAWin, evaluation, in $(WORKDIR)"
	@echo "make test        lint and the tests"
	@echo "make test-slow   the tests that take minutes"
	@echo "make lint        ruff, mypy and shellcheck"
	@echo "make docs        the documentation as a site, in site/"
	@echo "make format      rewrite the code in ruff's format"
	@echo "make venv        the virtual environment in $(VENV), with the versions of requirements.lock"
	@echo "make clean       remove $(VENV) and caches; runs/ stays"

venv: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "wpauc_jax needs Python 3.11 or later, $(PYTHON) is `$(PYTHON) -V 2>&1`; use make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $@

quickstart: $(STAMP)
	$(BIN)/python -m wpauc_jax.main --config=configs/quickstart.py --workdir=$(WORKDIR)

# Small programs that run once: XLA's optimisation would take most of the time. The slow tests run what users run.
test: export XLA_FLAGS ?= --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TYPED)
	$(BIN)/shellcheck launch/*.sh launch/*.sbatch

# MkDocs 1 and its theme print an advertisement for what may follow them; the variable leaves it out.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(STAMP)
	$(BIN)/mkdocs build

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
