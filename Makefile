# make setup   creates .venv with everything in it       make demo   runs the whole pipeline, preset tiny
# make test    lint, types, tests with coverage          make lint   ruff, mypy, no executed text
# make clean   removes .venv and caches, keeps runs/
#
# PYTHON=/path/to/python3.12 chooses the interpreter; TORCH=cpu|gpu overrides the look for a GPU.

.PHONY: setup demo test lint clean
.DEFAULT_GOAL := setup
BIN := .venv/bin

setup:
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" bash scripts/setup.sh

demo: setup
	$(BIN)/pipeline run all

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/check_execution.py

test: lint
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered $(ARGS)

clean:
	rm -rf .venv build *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
