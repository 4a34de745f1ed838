# AEGIS: `make` lists the targets. Paths are relative and quoted: the tree may be in any directory.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help runtime setup lock docs diagrams run demo test lint check format reference histories mutants simulator browser-test screenshots vendor throttle-check once-check candles-check stops-check priority-check keys-check backfill-check chase-cost bench messages messages-check clean doctor backup backup-check secrets-check
PYTHON := .venv/bin/python
# what runs; with what develops; with what drives a browser
RUNTIME := .venv/.runtime
INSTALLED := .venv/.installed
BROWSER := .venv/.browser
BENCH := .venv-bench/.installed
DOCS := .venv-docs/.installed
CATALOGUE := locale/ko/LC_MESSAGES/django
PORT ?= 9443
N ?= 2000
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 20

runtime: $(RUNTIME) $(CATALOGUE).mo ## Make .venv and install what runs; nothing else
	@:

setup: runtime $(INSTALLED) ## The same, with the development tools
	@:

lock: $(RUNTIME) ## Compile each requirements*.in to requirements*.txt with hashes
	@for name in requirements requirements-dev requirements-browser requirements-bench requirements-docs requirements-installer; do \
		$(or $(shell command -v uv),.venv/bin/uv) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
			--no-annotate --custom-compile-command "make lock" "$$name.in" --output-file "$$name.txt" || exit 1; \
	done

run: runtime ## Start everything and stay until Ctrl-C
	@exec $(PYTHON) manage.py run

demo: runtime ## Play a scripted day on the simulator; exit 0 when the ledgers agree
	@exec $(PYTHON) manage.py demo

test: setup ## Run every test, on every core; COVERAGE=1 measures branch coverage and enforces the minima
ifdef COVERAGE
	@rm -rf .aegis/coverage && mkdir -p .aegis/coverage
	@$(PYTHON) -m pytest -n auto --dist worksteal --cov --cov-report=
	@$(PYTHON) -m tools.coverage_check .aegis/coverage/data
else
	@$(PYTHON) -m pytest -n auto --dist worksteal
endif

histories: setup ## Random histories of orders, races, faults and crashes: make histories N=2000
	@mkdir -p .aegis && rm -f .aegis/histories.json
	@HISTORIES="$(N)" HISTORIES_REPORT=.aegis/histories.json $(PYTHON) -m pytest -q -n auto tests/histories/test_histories.py; \
		status=$$?; cat .aegis/histories.json; exit $$status

mutants: setup ## Remove one rule at a time in a copy of the tree: its tests must fail
	@$(PYTHON) -m tools.mutants

lint: setup ## Check style, types, import contracts, reference pages, settings and migrations
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(PYTHON) -c 'from importlinter.cli import lint_imports_command; lint_imports_command(["--no-logo"])'
	@$(PYTHON) -m tools.reference --check
	@$(PYTHON) -m tools.diagrams --check
	@$(PYTHON) manage.py check
	@# no database is needed; Django warns if it cannot reach one
	@$(PYTHON) -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

check: lint test ## lint and test

doctor: runtime ## Check every setting and service, and say how to fix what is wrong
	@$(PYTHON) manage.py doctor

backup: runtime ## Write a backup of the database under AEGIS_HOME/backups
	@$(PYTHON) manage.py backup

backup-check: runtime ## The same, restored into a scratch database and compared
	@$(PYTHON) manage.py backup --check

secrets-check: setup ## Play a day with planted secrets; search pages, logs, metrics, tasks and tables for them
	@$(PYTHON) -m bench.secrets_check

format: setup ## Format the code and fix what ruff can fix
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

simulator: runtime ## The broker's simulator alone: make simulator PORT=9443
	@exec $(PYTHON) manage.py kis_simulator --port "$(PORT)"

browser-test: $(BROWSER) $(CATALOGUE).mo ## Test the desk in headless Chromium; skipped without Chromium
	@$(PYTHON) -m pytest -m browser tests/browser

screenshots: $(BROWSER) $(CATALOGUE).mo ## Take the screenshots in docs/screens
	@$(PYTHON) -m pytest -m browser -q tests/browser/take_screenshots.py

vendor: ## Fetch the chart library at the version named here (needs npm)
	@rm -rf .venv/vendor && mkdir -p .venv/vendor
	@cd .venv/vendor && npm pack --silent lightweight-charts@5.2.1 >/dev/null && tar -xzf ./*.tgz
	@cp .venv/vendor/package/dist/lightweight-charts.standalone.production.js desk/static/desk/vendor/lightweight-charts.js
	@cp .venv/vendor/package/LICENSE desk/static/desk/vendor/lightweight-charts.LICENSE

diagrams: $(BROWSER) ## Draw docs/diagrams/*.mmd as SVG (needs npm and Chromium)
	@rm -rf .venv/vendor && mkdir -p .venv/vendor
	@cd .venv/vendor && npm pack --silent mermaid@11.17.2 >/dev/null && tar -xzf ./*.tgz
	@$(PYTHON) -m tools.diagrams --library .venv/vendor/package/dist/mermaid.min.js

docs: $(DOCS) ## Build the documentation site into site/; a dead link fails
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo 'Open site/index.html'

throttle-check: setup ## Eight processes share one call limit: no refusal, at least 95 % used
	@$(PYTHON) -m bench.throttle_check

candles-check: setup ## Compare the candles of an hour with the exchange's trades: MINUTES=60 SPEED=10
	@$(PYTHON) -W ignore -m bench.candles_check --minutes "$(or $(MINUTES),60)" --speed "$(or $(SPEED),10)"

once-check: setup ## The same request from eight processes at once, fifty times: one order at the exchange
	@$(PYTHON) -m bench.once_check

stops-check: setup ## Two hundred falls and scripted scenes: every guarded share is sold, once
	@$(PYTHON) -W ignore -m bench.stops_check

priority-check: setup ## Time from trigger to order behind forty chases, a slow order list and a blocked transaction
	@$(PYTHON) -W ignore -m bench.priority_check

backfill-check: setup ## Fetch years of daily prices beside orders, interrupted and continued: YEARS=5
	@$(PYTHON) -W ignore -m bench.backfill_check --years "$(or $(YEARS),5)"

keys-check: setup ## Three app keys and a hundred stops: revoke a key, move the fill notice two hundred times
	@$(PYTHON) -W ignore -m bench.keys_check

chase-cost: setup ## Chase forty orders three times, by cancel and by amend: broker calls, time without an open order
	@$(PYTHON) -W ignore -m bench.chase_cost

bench: $(BENCH) ## Ratios against peers and limits, measured in one run; writes bench/report.json
	@.venv-bench/bin/python -m bench

# what drives a browser; the browser itself is installed separately
$(BROWSER): requirements-browser.txt | $(INSTALLED)
	@sh tools/install.sh .venv requirements-browser.txt
	@touch $@

$(BENCH): requirements.txt requirements-bench.txt
	@sh tools/install.sh .venv-bench requirements.txt requirements-bench.txt
	@touch $@

$(DOCS): requirements-docs.txt
	@sh tools/install.sh .venv-docs requirements-docs.txt
	@touch $@

reference: setup ## Write docs/reference/ from the code
	@$(PYTHON) -m tools.reference

messages: setup ## Collect the messages to translate into the Korean catalogue
	@PYTHONPATH=. $(PYTHON) -m babel.messages.frontend -q extract -F pyproject.toml --no-location --sort-output -k gettext_lazy -k gettext_noop -k _ \
		-o .venv/django.pot aegis infra kis simulator market portfolio orders stream notify monitor desk ops rehearsal config
	@$(PYTHON) -m babel.messages.frontend -q update --no-fuzzy-matching --ignore-pot-creation-date \
		-l ko -D django -d locale -i .venv/django.pot
	@# remove header lines that are placeholders; a text in braces is no percent format, though it may contain "%-m" or "5 % of"
	@sed -e 's/^#, python-brace-format, python-format$$/#, python-brace-format/' \
		-e '/EMAIL@ADDRESS/d' -e '/YEAR-MO-DA/d' -e '/LL@li.org/d' -e '/^"POT-Creation-Date/d' -e '/^"Generated-By/d' \
		$(CATALOGUE).po > .venv/django.po && cp .venv/django.po $(CATALOGUE).po
	@$(MAKE) --no-print-directory $(CATALOGUE).mo

messages-check: setup ## Check that every message has its Korean, with the same placeholders
	@$(PYTHON) -m pytest -q tests/test_house.py -k korean

clean: ## Remove caches; databases, logs and .venv stay
	@find . -name __pycache__ -type d -not -path './.venv/*' -not -path './.aegis/*' -prune -exec rm -rf {} +
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(CATALOGUE).mo: $(CATALOGUE).po | $(RUNTIME)
	@$(PYTHON) -m babel.messages.frontend -q compile -i $< -o $@ -l ko

# a mark is made last: an installation that was broken off is continued
$(RUNTIME): requirements.txt requirements-installer.txt
	@sh tools/install.sh .venv requirements.txt
	@touch $@

$(INSTALLED): requirements-dev.txt | $(RUNTIME)
	@sh tools/install.sh .venv requirements-dev.txt
	@touch $@
