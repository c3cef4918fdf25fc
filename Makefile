# The two commands that matter: `make demo` and `make test`. Both set up `.venv` by themselves.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
WORKERS ?= 2

.PHONY: demo test lint format site bench catalogue clean

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "assay needs Python 3.11 or newer; name one with PYTHON=python3.12 make ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/demo.done: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[mnist,music,rl]'
	@touch $@

.venv/test.done: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[all,test]'
	@touch $@ .venv/demo.done

.venv/lint.done: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[lint]'
	@touch $@

demo: .venv/demo.done
	$(BIN)/assay run coordconv coconet lola --profile demo
	$(BIN)/assay site
	@echo
	@echo "The published verdicts and figures of every study: open site/index.html"
	@echo "Next: .venv/bin/assay list, then .venv/bin/assay run coordconv (the full laptop study)"

test: .venv/test.done
	$(BIN)/python -m pytest

lint: .venv/lint.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_readme.py

format: .venv/lint.done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

site: .venv/demo.done
	$(BIN)/assay site

bench: .venv/test.done
	@for file in benchmarks/[!_]*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

# What `assay list` reads, and the README's table.
catalogue: .venv/demo.done
	$(BIN)/assay catalogue
	$(BIN)/python tools/check_readme.py --write

clean:
	rm -rf site results .pytest_cache .mypy_cache .ruff_cache .hypothesis
