# Two commands: `make demo` runs the whole path, `make test` runs every test. Both set everything up first.
# Any Python 3.11 or later will do: make PYTHON=python3.12 demo
PYTHON ?= python3
.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo test test-compose bench bench-exporter bench-rules check format pins clean

help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

setup: ## Prepare .venv and the servers; runs nothing, does nothing the second time
	@$(PYTHON) stack/bootstrap.py

setup-test: ## The same, and environments for packages that fight with those of .venv (for tests alone)
	@$(PYTHON) stack/bootstrap.py --with-test-environments

demo: setup ## Run the whole path on this machine and print a verdict, in two minutes once it is set up
	@.venv/bin/cmo demo

test: setup-test check ## Run every test
	.venv/bin/pytest -n 4 --dist worksteal --ignore=tests/e2e
	@if [ -d tests/e2e ]; then set -x; .venv/bin/pytest -n 2 tests/e2e; fi

test-compose: setup ## Prove docker-compose.yml with a real Docker engine, in 8 minutes (docs/compose.md)
	@.venv/bin/python -m tests.compose.prove

bench: bench-exporter bench-rules ## Run every benchmark

bench-exporter: setup ## Measure what the exporter costs, in a quarter of an hour, and write docs/benchmarks.md
	.venv/bin/python -m cmo_bench.exporter --output docs/benchmarks.md

bench-rules: setup ## Measure what the rules read, their 30-day result and how soon they page; docs/benchmarks-rules.md
	.venv/bin/python -m cmo_bench.rules --output docs/benchmarks-rules.md

check: setup ## Run linters and the type checker
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/mypy tests
	.venv/bin/lint-imports

format: setup ## Mend what the linters can mend
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

pins: setup-test ## Pin requirements anew after a change of dependencies (needs uv); PINS=--upgrade for newer ones
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(PINS) pyproject.toml \
	    requirements/build.in --all-extras --no-emit-package cmo-observability --output-file requirements/dev.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes pyproject.toml --extra oracle --extra slo \
	    --extra loadtest --extra probe --no-emit-package cmo-observability --constraints requirements/dev.txt \
	    --output-file requirements/image.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes requirements/build.in \
	    --constraints requirements/dev.txt --output-file requirements/image-build.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(PINS) requirements/lightrag-1.4.in \
	    --excludes requirements/lightrag-1.4.excludes --output-file requirements/lightrag-1.4.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(PINS) requirements/chainlit.in \
	    --excludes requirements/chainlit.excludes --output-file requirements/chainlit.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(PINS) \
	    requirements/chainlit-build.in --output-file requirements/chainlit-build.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(PINS) \
	    requirements/grafana.in --output-file requirements/grafana.txt
	cd requirements/grafana-library && PATH="$(CURDIR)/.venv-grafana/bin:$$PATH" npm install --package-lock-only
	@# Without the addresses at which authors ask for money.
	.venv/bin/python -c "import json, pathlib; lock = pathlib.Path('requirements/grafana-library/package-lock.json'); \
	    read = json.loads(lock.read_text()); [package.pop('funding', None) for package in read['packages'].values()]; \
	    lock.write_text(json.dumps(read, indent=2) + '\n')"

clean: ## Stop the stack and remove what set-up and runs have made
	@if [ -x .venv/bin/cmo ]; then .venv/bin/cmo stack down || true; fi
	rm -rf .venv .venv-lightrag-1.4 .venv-chainlit .venv-grafana .servers .cmo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
