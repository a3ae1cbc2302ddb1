PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
THREADS := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0

.PHONY: install demo test proof lint types

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "insvie-lightning needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; name another: make install PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/python -m insvie_lightning.commands.demo

test: install
	$(THREADS) $(BIN)/python -m pytest -m 'not proof' -n 2 --dist loadscope --cov --cov-report=term

proof: install
	$(BIN)/python -m pytest -m proof
	$(BIN)/python benchmarks/ablations.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy
