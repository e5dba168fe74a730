# Everything runs in .venv, which each target creates or updates as needed.
PYTHON ?= python3
ARGS ?=
# Compose profiles and additional files: COMPOSE="--profile demo --profile observability"
COMPOSE ?=
VENV := .venv
BIN := $(VENV)/bin
CODE := access alarms auth bench broker database device gateway onebox persister reader readings runtime simulator storage testing tests tools
# Two makes must not fill one .venv at the same time; without flock(1), run one at a time.
LOCK := $(shell command -v flock >/dev/null 2>&1 && echo flock .venv.lock)

.PHONY: help run test test-fast fuzz bench chaos matrix power simulate soak check types format pre-commit openapi settings \
	screenshots build-fast test-compiled up down backup restore compose-test clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Compiling the modules again at each start would be a fifth of it.
run: $(VENV)/onebox.done ## run the whole pipeline on this machine (ARGS="--help" lists its options)
	@PYTHONDONTWRITEBYTECODE= exec $(BIN)/python -m onebox $(ARGS)

# Tests mostly wait, so four workers on two processors. Each has its own servers; WORKERS=0 runs everything in one process.
WORKERS ?= 4
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10

# A run starts a thousand processes, and each would compile its modules anew.
test fuzz test-compiled: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/dev.done ## run every test, on real servers that the tests start themselves (ARGS="-k name" goes to pytest)
	@testing/servers/install >&2
	@testing/servers/install-from-debian sid rabbitmq-server >/dev/null || echo "the newest RabbitMQ is not available here (see the line above)" >&2
	@exec $(PYTEST) $(if $(ARGS),$(ARGS),--rerun)

test-fast: $(VENV)/dev.done ## run some 3,000 tests that need no server and no other process, in less than a minute
	@PYTHONDONTWRITEBYTECODE= exec $(BIN)/python -m pytest -n 4 --dist worksteal -p no:schemathesis -q -m "not server and not slow" $(ARGS)

# Any number but 1, the seed of `make test`.
TEST_SEED ?= $(shell od -An -N3 -tu4 /dev/urandom | tr -d ' ')
fuzz: $(VENV)/dev.done ## run the tests with random input from another seed (TEST_SEED=N repeats a run)
	@testing/servers/install >&2
	@TEST_SEED=$(TEST_SEED) exec $(PYTEST) -m fuzz $(ARGS)

bench: $(VENV)/dev.done ## measure the cost of a reading, here and in other systems (ARGS="--quick": 5 minutes; ARGS="--help")
	@testing/servers/install >&2
	@exec $(BIN)/python -m bench $(ARGS)

chaos: $(VENV)/dev.done ## run a fleet under faults and account for every reading (ARGS="--minutes M --seed S", "--cluster")
	@testing/servers/install >&2
	@exec $(BIN)/python -m tests.faults $(ARGS)

matrix: $(VENV)/dev.done ## run the whole pipeline on each version of each server (ARGS="--only rabbitmq", --short, --list)
	@testing/servers/install >&2
	@exec $(BIN)/python -m tests.matrix $(ARGS)

power: $(VENV)/dev.done ## cut the power of servers on a disk that forgets what was not synced (ARGS="--cuts N --seed S", --only, --list)
	@testing/servers/install >&2
	@exec $(BIN)/python -m tests.power $(ARGS)

simulate: $(VENV)/dev.done ## run 10,000 seeds of the pipeline in virtual time, with crashes (ARGS="--seeds N --seed S --plant NAME")
	@exec $(BIN)/python -m tests.simulation $(ARGS)

soak: $(VENV)/dev.done ## run 1,000 devices for hours and judge what grows (ARGS="--hours H --resume DIR", "--overload --minutes M")
	@testing/servers/install >&2
	@exec $(BIN)/python -m tests.soak $(ARGS)

check: $(VENV)/dev.done ## run formatter, linter and type checker
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy $(CODE)

types: $(VENV)/dev.done ## run the type checker alone
	@$(BIN)/mypy $(CODE)

pre-commit: $(VENV)/dev.done ## run the same checks before each commit of this checkout
	@$(BIN)/pre-commit install

format: $(VENV)/dev.done ## format the code and fix what the linter can fix
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

openapi: $(VENV)/dev.done ## generate docs/protocol/openapi.json and its page from the HTTP operations
	@$(BIN)/python -m tools.openapi_file

settings: $(VENV)/dev.done ## generate docs/settings.md and the other lists of settings
	@$(BIN)/python -m tools.settings_table

screenshots: $(VENV)/dev.done ## take the pictures in docs/images
	@testing/servers/install >&2
	@$(BIN)/python -m tests.e2e.screenshots

build-fast: $(VENV)/onebox.done $(VENV)/build.done ## compile the modules that every reading passes (needs a C compiler)
	@$(BIN)/python -m tools.build_fast

# The compiled modules, alone and in virtual time; the broker's contract; and once the whole way, in processes.
COMPILED_TESTS = tests/runtime/test_compiled.py tests/gateway/limits/test_rates.py tests/gateway/test_lanes.py \
	tests/gateway/test_to_broker.py tests/gateway/test_ingest.py tests/gateway/socket/test_fast_path.py \
	tests/gateway/socket/test_device_socket.py tests/persister/test_batch.py tests/readings/test_document.py \
	tests/simulation/test_simulation.py tests/broker/test_contract.py \
	tests/integration/test_pipeline.py::test_a_killed_gateway_loses_nothing_that_was_acknowledged
test-compiled: $(VENV)/dev.done ## run the tests of the compiled modules on what `make build-fast` has compiled
	@testing/servers/install >&2
	@TIDEGATE_COMPILED=required exec $(PYTEST) $(COMPILED_TESTS) $(if $(ARGS),$(ARGS),--rerun)

up: ## Docker Compose: start everything on this host (ARGS="--scale persister=4"; COMPOSE="--profile demo" adds devices)
	@$(PYTHON) deploy/compose/env.py
	@docker compose $(COMPOSE) up --build --detach --wait --wait-timeout 300 $(ARGS)
	@echo "Tidegate is up: http://$$(docker compose $(COMPOSE) port proxy 8080)"

down: ## Docker Compose: stop everything and keep the data (ARGS="--volumes" removes it)
	@docker compose --profile "*" $(COMPOSE) down $(ARGS)

backup: ## Docker Compose: back up accounts, readings and secrets, while devices keep streaming (ARGS="FOLDER")
	@COMPOSE="$(COMPOSE)" deploy/compose/backup.sh $(ARGS)

restore: ## Docker Compose: restore a backup into an empty stack (ARGS="FOLDER")
	@COMPOSE="$(COMPOSE)" deploy/compose/restore.sh $(ARGS)

# A script that builds substitutes for the base images where no image registry is reachable; elsewhere they are pulled.
BASE_IMAGES ?= ../shared/docker/base-images.sh
IMAGES := $(shell sed -n 's/^ *image: \([a-z/]*:.*\)/\1/p' compose.yaml) $(shell sed -n 's/^FROM \([a-z]*:[^ ]*\).*/\1/p' Dockerfile deploy/mongodb/Dockerfile)

compose-test: $(VENV)/dev.done ## test the Compose stack on a real Docker Engine: scaled, killed, restored; every reading accounted for
	@if [ -x "$(BASE_IMAGES)" ]; then "$(BASE_IMAGES)" $(filter-out grafana/%,$(sort $(IMAGES))) >&2 && $(BIN)/python -m tests.compose; \
	elif docker info >/dev/null 2>&1; then $(BIN)/python -m tests.compose; \
	else echo "NOT TESTED: compose.yaml, as there is no Docker Engine here and no $(BASE_IMAGES)" >&2; fi

clean: ## remove the environment and the caches, but not ./data
	@rm -rf $(VENV) .venv.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

# Standard output is reserved for the command's own output (--json).
$(VENV)/%.done: requirements/%.txt requirements/services.txt requirements/onebox.txt requirements/tracing.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tidegate needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=...")'
	@echo "installing requirements/$*.txt into $(VENV); the first time takes a minute" >&2
	@$(LOCK) sh -c '{ [ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear $(VENV); } && $(BIN)/pip install --quiet --disable-pip-version-check -r $< && touch $@' >&2
