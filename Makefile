# Two commands are enough: `make run` and `make test`. Each makes what it needs first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test slow lint docs test-docs test-plugins clean

run: .venv/.installed
	$(BIN)/upskit run recipes/burgers_upt.toml

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n 2

slow: .venv/.installed-dev
	$(BIN)/python -m pytest -m slow

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.installed-docs
	$(BIN)/python -m sphinx -q -W --keep-going -n -j 2 -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

test-docs: .venv/.installed-docs
	$(BIN)/python -m pytest docs README.md

test-plugins: .venv/.installed-plugins
	$(BIN)/python -m pytest -n 2 plugins/ups-tokens
	$(BIN)/python -m pytest -n 2 plugins/ups-wandb

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

.venv/.installed-docs: .venv/.installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

.venv/.installed-plugins: .venv/.installed-dev plugins/ups-tokens/pyproject.toml plugins/ups-wandb/pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e "plugins/ups-tokens[test]" -e "plugins/ups-wandb[test]"
	touch $@

clean:
	rm -rf .venv docs/_build docs/generated
