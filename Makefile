# Everything runs in .venv, which each target makes as it needs it.
PYTHON ?= python3
ARGS ?=
# Profiles and further files: COMPOSE="--profile demo --profile observability"
COMPOSE ?=
VENV := .venv
BIN := $(VENV)/bin
CODE := access auth bench broker gateway onebox persister reader readings runtime simulator testing tests tools
# Two makes at once must not fill one .venv together. Where flock(1) is missing, run one at a time.
LOCK := $(shell command -v flock >/dev/null 2>&1 && echo flock .venv.lock)

.PHONY: help run test fuzz bench chaos check format openapi screenshots up down backup restore compose-test clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/onebox.done ## the whole pipeline on this machine (ARGS="--help" lists what it takes)
	@exec $(BIN)/python -m onebox $(ARGS)

# Much of a test is waiting. Each worker has servers of its own; WORKERS=0 runs all in one process.
WORKERS ?= 3
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10

test: $(VENV)/dev.done ## every test, on real servers that it starts for itself (ARGS="-k name" is handed to pytest)
	@testing/servers/install >&2
	@testing/servers/install-newest-rabbitmq >/dev/null || echo "the newest RabbitMQ cannot be had here (the line above says why)" >&2
	@exec $(PYTEST) $(ARGS)

# Any number but 1, which is what `make test` draws from.
TEST_SEED ?= $(shell od -An -N3 -tu4 /dev/urandom | tr -d ' ')
fuzz: $(VENV)/dev.done ## the tests that draw their input, from another seed (TEST_SEED=N repeats a run)
	@testing/servers/install >&2
	@TEST_SEED=$(TEST_SEED) exec $(PYTEST) -m fuzz $(ARGS)

bench: $(VENV)/dev.done ## what a reading costs, here and elsewhere (ARGS="--quick": 5 minutes; ARGS="--help": each by its name)
	@testing/servers/install >&2
	@exec $(BIN)/python -m bench $(ARGS)

chaos: $(VENV)/dev.done ## the proof under faults (ARGS="--minutes M --seed S")
	@testing/servers/install >&2
	@exec $(BIN)/python -m tests.faults $(ARGS)

check: $(VENV)/dev.done ## formatter, linter, type checker
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy $(CODE)

format: $(VENV)/dev.done ## put the code into its form
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

openapi: $(VENV)/dev.done ## write docs/protocol from the calls that the services declare
	@$(BIN)/python -m tools.openapi_file

screenshots: $(VENV)/dev.done ## take the pictures in docs/images
	@testing/servers/install >&2
	@$(BIN)/python -m tests.e2e.screenshots

up: ## Docker Compose: everything on this host (ARGS="--scale persister=4"; COMPOSE="--profile demo" adds devices)
	@$(PYTHON) deploy/compose/env.py
	@docker compose $(COMPOSE) up --build --detach --wait --wait-timeout 300 $(ARGS)
	@echo "Tidegate is up: http://$$(docker compose $(COMPOSE) port proxy 8080)"

down: ## end Docker Compose's containers; what is stored stays (ARGS="--volumes" removes it)
	@docker compose --profile "*" $(COMPOSE) down $(ARGS)

backup: ## Docker Compose: accounts, readings and secrets into a folder, while devices stream on (ARGS="FOLDER")
	@COMPOSE="$(COMPOSE)" deploy/compose/backup.sh $(ARGS)

restore: ## Docker Compose: fill an empty stack from a backup (ARGS="FOLDER")
	@COMPOSE="$(COMPOSE)" deploy/compose/restore.sh $(ARGS)

# A script that builds stand-ins for the base images where no image registry can be reached; elsewhere they are pulled.
BASE_IMAGES ?= ../shared/docker/base-images.sh
IMAGES := $(shell sed -n 's/^ *image: \([a-z/]*:.*\)/\1/p' compose.yaml) $(shell sed -n 's/^FROM \([a-z]*:[^ ]*\).*/\1/p' Dockerfile deploy/mongodb/Dockerfile)

compose-test: $(VENV)/dev.done ## the compose stack on a real Docker Engine: up, scaled, killed, down; every reading accounted for
	@if [ -x "$(BASE_IMAGES)" ]; then "$(BASE_IMAGES)" $(filter-out grafana/%,$(sort $(IMAGES))) >&2 && $(BIN)/python -m tests.compose; \
	elif docker info >/dev/null 2>&1; then $(BIN)/python -m tests.compose; \
	else echo "NOT TESTED: compose.yaml, for no Docker Engine runs here and $(BASE_IMAGES) is not there" >&2; fi

clean: ## remove the environment and the caches, keep ./data
	@rm -rf $(VENV) .venv.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

# Standard output stays free for what the command itself prints (--json).
$(VENV)/%.done: requirements/%.txt requirements/services.txt requirements/onebox.txt requirements/tracing.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tidegate needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=...")'
	@echo "installing requirements/$*.txt into $(VENV) (the first time takes a minute)" >&2
	@$(LOCK) sh -c '{ [ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear $(VENV); } && $(BIN)/pip install --quiet --disable-pip-version-check -r $< && touch $@' >&2
