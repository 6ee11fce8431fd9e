# make setup   creates .venv with everything in it       make demo   runs the whole pipeline, preset tiny
# make test    lint, types, all tests                   make lint   ruff, mypy, no executed text
# make coverage   the tests that are not slow, and the lines that they miss; half as long again
# make fuzz    graders and parsers under atheris, SECONDS=60 for each target
# make clean   removes .venv and caches, keeps runs/
#
# PYTHON=/path/to/python3.12 chooses the interpreter; TORCH=cpu|gpu overrides the look for a GPU.

.PHONY: setup demo test lint coverage fuzz clean
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
	@bash scripts/test.sh $(ARGS)

coverage: setup
	$(BIN)/python -m pytest -m "not slow" --cov --cov-report=term-missing:skip-covered $(ARGS)

fuzz: setup
	$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/python -m pip install -q -e ".[fuzz]"
	$(BIN)/python -m fuzz --seconds $(or $(SECONDS),60) $(ARGS)

clean:
	rm -rf .venv build *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
