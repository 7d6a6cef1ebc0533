# `make` prints help. Every target sets up what it needs; only python3 (3.11 to 3.13) and make must be there.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory

FITS := (3, 11) <= sys.version_info < (3, 14)
# The system's own python3 where it will do: distributions optimize their builds by profile, pyenv and others do
# not, and a call then costs Till a fifth more.
PYTHON ?= $(shell for each in /usr/bin/python3 python3; do \
	$$each -c 'import ensurepip, sys; sys.exit(not $(FITS))' 2>/dev/null && echo $$each && exit; done; echo python3)
ARGS ?=
BENCH ?= full
# One more than there are cores: a sixth of its time a test waits, for a disk, a clock or a process.
WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
BIN := .venv/bin
BENCH_BIN := .venv-bench/bin
READY := .venv/.ready
IMAGE := build/image.binpb
PROTOS := protos/till/v1 $(wildcard protos/till/v1/*.proto)
CODE := server storage tests protos/generate.py
# RUNLEVEL=1 keeps a package from starting a service.
APT := RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends
# Debian's own builds of everything in tests/bench/go; nothing else is fetched.
GO_PACKAGES := golang-go golang-google-grpc-dev golang-github-mattn-go-sqlite3-dev protoc-gen-go-1-3 gcc libc6-dev
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(READY) ## Install everything into .venv; PYTHON=python3.12 chooses the interpreter

$(READY): pyproject.toml requirements.lock
	@echo "Setting up .venv, half a minute …"
	@$(PYTHON) -c 'import sys; sys.exit(not $(FITS))' \
		|| { echo "Till needs Python 3.11 to 3.13; choose one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) venv-package
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

# Debian's python3 comes without venv's second half.
.PHONY: venv-package
venv-package:
	@{ [ "$$(id -u)" = 0 ] && apt-get update -qq && $(APT) $(notdir $(PYTHON))-venv >/dev/null; } \
		|| { echo "Till needs venv: sudo apt-get install $(notdir $(PYTHON))-venv" >&2; exit 1; }

.PHONY: run
run: $(READY) ## Serve REST on 127.0.0.1:8080 and gRPC on 127.0.0.1:8081, until Ctrl-C
	@exec $(BIN)/till run

.PHONY: demo
demo: $(READY) ## Show every documented call and its answer
	@exec $(BIN)/till demo

.PHONY: test
test: $(READY) mariadb ## Run the tests, on SQLite and on a MariaDB of their own; ARGS="-k wave" chooses some
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

# The tests start a server of their own; the package's must not run.
.PHONY: mariadb
mariadb:
	@PATH="$$PATH:/usr/sbin" command -v mariadbd >/dev/null || $(MAKE) mariadb-package

.PHONY: mariadb-package
mariadb-package:
	@{ [ "$$(id -u)" = 0 ] && apt-get update -qq && $(APT) mariadb-server >/dev/null; } \
		|| { echo "The tests need MariaDB: sudo env RUNLEVEL=1 apt-get install mariadb-server" >&2; exit 1; }

.PHONY: faults
faults: $(READY) mariadb ## Kill and restart the database in the middle of load
	@$(BIN)/python -m pytest tests/faults.py $(ARGS)

.PHONY: galera
galera: $(READY) mariadb galera-ready ## Sell, repeat and kill on a Galera cluster of three nodes, a minute and a half
	@$(BIN)/python -m pytest tests/galera.py $(ARGS)

.PHONY: galera-ready
galera-ready:
	@{ [ -e /usr/lib/galera/libgalera_smm.so ] && command -v rsync; } >/dev/null || $(MAKE) galera-package

.PHONY: galera-package
galera-package:
	@{ [ "$$(id -u)" = 0 ] && apt-get update -qq && $(APT) galera-4 rsync iproute2 >/dev/null; } \
		|| { echo "The cluster needs Galera: sudo apt-get install galera-4 rsync iproute2" >&2; exit 1; }

.PHONY: soak
soak: $(READY) mariadb ## Let 64 writers fight for three rows of stock, a minute
	@$(BIN)/python -m pytest tests/test_soak.py -m soak $(ARGS)

.PHONY: generate
generate: $(READY) ## Write generated/ from protos/
	@$(BIN)/python protos/generate.py

.PHONY: format
format: $(READY) ## Lay out the code and the protos
	@$(BIN)/ruff check --quiet --fix-only $(CODE)
	@$(BIN)/ruff format --quiet $(CODE)
	@$(BIN)/buf format -w protos

.PHONY: lint
lint: $(READY) $(IMAGE) ## Lint, check the layout and the types, of Python and protos
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/ruff format --quiet --check $(CODE)
	@$(BIN)/python -m mypy
	@$(BIN)/buf lint $(IMAGE) --path till
	@$(BIN)/buf format --diff --exit-code protos

.PHONY: breaking
breaking: $(READY) $(IMAGE) ## Refuse protos that break callers of the baseline
	@$(BIN)/buf breaking $(IMAGE) --against protos/baseline.binpb --path till

.PHONY: baseline
baseline: $(READY) $(IMAGE) ## Make today's protos the baseline of `make breaking`
	@$(BIN)/buf build $(IMAGE) --path till --exclude-source-info -o protos/baseline.binpb

$(IMAGE): $(READY) protos/generate.py $(PROTOS)
	@mkdir -p $(@D)
	@$(BIN)/python protos/generate.py --image $@

.PHONY: same
same: $(READY) ## Check that generated/ is what protos/ make
	@rm -rf build/same && mkdir -p build/same && cp -r protos build/same/
	@$(BIN)/python build/same/protos/generate.py
	@diff -r -x __pycache__ build/same/generated generated \
		|| { echo "generated/ is not what protos/ make; run: make generate" >&2; exit 1; }

.PHONY: edge
edge: $(READY) ## Let Envoy check its configuration
	@$(BIN)/envoy --mode validate --log-level warn --config-path envoy/envoy.yaml

.PHONY: check
check: same lint breaking edge test ## The one word before a push: same, lint, breaking, edge, test

.PHONY: gateway
gateway: $(READY) $(IMAGE) ## Prove that grpc-gateway accepts the protos
	@command -v protoc-gen-grpc-gateway >/dev/null || $(MAKE) gateway-package
	@rm -rf build/gateway && mkdir -p build/gateway
	@$(BIN)/python -m grpc_tools.protoc --descriptor_set_in=$(IMAGE) --grpc-gateway_out=logtostderr=true:build/gateway \
		$(patsubst protos/%,%,$(filter %.proto,$(PROTOS)))
	@grep -rl RegisterOrderServiceHandler build/gateway >/dev/null
	@echo "grpc-gateway accepts the protos: $$(find build/gateway -name '*.pb.gw.go' | wc -l) files"

.PHONY: gateway-package
gateway-package:
	@{ [ "$$(id -u)" = 0 ] && apt-get update -qq && $(APT) golang-grpc-gateway >/dev/null; } \
		|| { echo "This check needs Debian's plugin: sudo apt-get install golang-grpc-gateway" >&2; exit 1; }

.PHONY: bench
bench: $(READY) $(BENCH_BIN)/.ready build/bench/go/.ready ## Measure Till beside its peers and limits, ten minutes; BENCH=quick: two and a half
	@PYTHONPATH=tests:. $(BENCH_BIN)/python -m bench $(BENCH) $(ARGS)

.PHONY: bench-growth
bench-growth: ## Measure creates and reads with up to 10^7 orders stored, a quarter of an hour
	@$(MAKE) bench BENCH=growth

$(BENCH_BIN)/.ready: tests/bench/requirements.lock
	@echo "Setting up .venv-bench, half a minute …"
	@$(PYTHON) -m venv .venv-bench
	@$(BENCH_BIN)/python -m pip install -qq --require-hashes -r $<
	@touch $@

build/bench/go/.ready: $(READY) $(wildcard tests/bench/go/* tests/bench/go/*/*)
	@{ command -v go protoc-gen-go && [ -d /usr/share/gocode/src/google.golang.org/grpc ] \
		&& [ -d /usr/share/gocode/src/github.com/mattn/go-sqlite3 ]; } >/dev/null || $(MAKE) go-packages
	@tests/bench/go/build.sh $(@D) $(BIN)/python
	@touch $@

.PHONY: go-packages
go-packages:
	@{ [ "$$(id -u)" = 0 ] && apt-get update -qq && $(APT) $(GO_PACKAGES) >/dev/null; } \
		|| { echo "The bench needs Go: sudo apt-get install $(GO_PACKAGES)" >&2; exit 1; }

.PHONY: bench-lock
bench-lock: ## Write tests/bench/requirements.lock anew
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install -qq 'uv>=0.13'
	@build/lock/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make bench-lock' \
		tests/bench/requirements.in --output-file tests/bench/requirements.lock

# In a venv of its own, so that a lock that cannot be installed can still be replaced.
.PHONY: lock
lock: ## Write requirements.lock anew, for every Python and system at once
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install -qq 'uv>=0.13'
	@build/lock/bin/uv pip compile --quiet --upgrade --universal --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
		--extra dev pyproject.toml --output-file requirements.lock

.PHONY: schema
schema: $(READY) ## Print the tables as the models say, to write a migration from
	@$(BIN)/python -m storage.ddl

.PHONY: clean
clean: ## Remove what can be made again; data/ stays
	@rm -rf .venv .venv-bench build till.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find server storage tests protos generated -name __pycache__ -exec rm -rf {} +
