# Scoreline on one machine. Paths are relative and quoted: the folder may have a space in its name.
.DEFAULT_GOAL := help
.PHONY: help setup demo test soak lint bench up down status clean lock
TOOLS = . ./var/conf/toolchain.sh
# In the order of the files: the days under the scheduler are few tests and long ones, and begin first.
TESTS = python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 30

help: ## list what there is
	@echo "Scoreline: precomputed machine-learning scores, from table to key."
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)$$/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-14s %s\n", $$1, $$2 }'

setup: ## install what is missing: packages, jars, Java, Redis (all but the last two under var/)
	@infra/setup/find-python -m infra.setup

demo: setup ## 17 months of real purchases, from landing files to scores over HTTP, then stop
	@var/venv/bin/python -m infra.embedded demo

test: setup ## all tests but the large ones
	@$(TOOLS) && $(TESTS) -m "not soak"

soak: setup ## the large versions of the tests
	@$(TOOLS) && $(TESTS) -m soak

lint: setup ## style, types, and the layers of the packages
	@$(TOOLS) && ruff check . && ruff format --check . && mypy && lint-imports

bench: setup ## measure speeds beside real peers, and print a table (ONLY=name, QUICK=1)
	@$(TOOLS) && python -m tests.benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)

up: setup ## start Redis, MLflow, Airflow and the lookup service, and say where they are
	@var/venv/bin/python -m infra.embedded up

down: ## stop exactly what was started
	@if [ -x var/venv/bin/python ]; then var/venv/bin/python -m infra.embedded down; else echo "nothing was running"; fi

status: ## where the services are; fails when one of them is dead
	@if [ -x var/venv/bin/python ]; then var/venv/bin/python -m infra.embedded status; else echo "nothing is running: make up"; fi

clean: down ## stop, and remove var/ with all in it (environment, data, models, logs) and the tools' caches
	@rm -rf var .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@echo "removed var/ and the tools' caches"

lock: setup ## pin the newest allowed versions with their hashes; no addresses
	@var/venv/bin/uv pip compile --upgrade --universal --python-version 3.11 --fork-strategy fewest --all-extras \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet \
		pyproject.toml --output-file requirements.lock
	@var/venv/bin/uv pip compile --upgrade --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet \
		infra/bench/feast.in --output-file infra/bench/feast.lock
