# Every target makes the virtual environment that it needs, and brings it up to date when pyproject.toml has changed.
#
#   make test PYTHONS=          only the environment's own Python
#   make demo ARGS="--help"     arguments for the demonstration
#   make fuzz SECONDS=3600      how long to fuzz, all targets together
#   make soak EVENTS=5000000 SEEDS=1    less of it
#   make soak IN=build/compiled         with the simulator that make compiled made
#   make PYTHON=python3.12 ...  which interpreter the environment is made with, when there is none yet

PYTHON  ?= python3
PYTHONS ?= $(shell tools/pythons)
ARGS    ?=
SECONDS ?= 300
KILLS   ?= 1000

EVENTS  ?= 500000000
SEEDS   ?= 50000
IN      ?= .
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
FUZZ  := .venv-fuzz
BENCH := .venv-bench

# Debian's names of the brokers that networkio is compared with.
BROKERS := nats-server mosquitto redis-server

# The directories that are there and hold Python: mypy refuses an empty one.
SOURCES = $(foreach directory,networkio_proto networkio_asyncio networkio_threads networkio_command networkio_testing \
	networkio_metrics networkio_sockets networkio_journal networkio_keys networkio_tls networkio_pytest tests examples benchmarks,\
	$(if $(shell find $(directory) -name '*.py' 2>/dev/null),$(directory)))

PYTEST  := -m pytest --no-header -W error
VERSION := import sys; print("%d.%d" % sys.version_info[:2])

comma := ,

# Tests of the core beside tests/proto, which are not measured by coverage.
GAMES := tests/fuzz tests/model tests/testing tests/scenarios

# Tests that start programs: mostly they wait for them.
PROGRAMS := tests/command tests/docs tests/chaos tests/benchmarks

# $(call install,DIRECTORY,INTERPRETER,EXTRAS): a virtual environment left half-made by an interrupted run is made anew.
define install
{ $(1)/bin/python -m pip --version >/dev/null 2>&1 || $(2) -m venv --clear $(1); } \
	&& $(1)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[$(3)]' \
	&& touch $(1)/.installed
endef

# Tests and benchmarks start programs by the hundred, and each would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-core test-slow test-games test-searches test-rest test-programs fuzz machines networks \
	hostile exhaust model money crash soak compiled bench bench-peers bench-brokers check docs clean

help:  ## show this list (the default)
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1@\2/p' Makefile | awk -F@ '{ printf "  make %-11s %s\n", $$1, $$2 }'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "networkio needs Python 3.11 or later and $(PYTHON) is not; on this machine these would do:"; \
		tools/pythons; echo "(make PYTHON=...)"; exit 1; }
	@echo "==> installing into $(VENV)"
	@$(call install,$(VENV),$(PYTHON),test$(comma)docs)

demo: $(STAMP)  ## watch two peers talk while their connection is cut
	@$(BIN)/networkio demo $(ARGS)

test: $(STAMP)  ## run every test, and the quick ones on each other Python found here
	@echo "==> the core by its own tests alone, and everything else beside it; this takes some minutes"
	@$(MAKE) --no-print-directory -j3 --output-sync=target test-core test-rest test-programs test-slow test-games test-searches
	@tools/test-others "$$($(BIN)/python -c '$(VERSION)')" $(PYTHONS)

test-core: $(STAMP)
	@echo "==> the core by its own quick tests alone: every line, every branch"
	@$(BIN)/coverage erase
	@$(BIN)/coverage run $(PYTEST) tests/proto -m 'not slow'
	@$(BIN)/coverage report --include='networkio_proto/*' --fail-under=100

test-slow: $(STAMP)
	@echo "==> the core's slow tests, at full speed"
	@$(BIN)/python $(PYTEST) tests/proto -m slow

test-games: $(STAMP)
	@echo "==> the core in simulated worlds: games, fuzzing, scripts, the model"
	@$(BIN)/python $(PYTEST) $(GAMES)

test-searches: $(STAMP)
	@echo "==> the core where it can be tried out to the end"
	@$(BIN)/python $(PYTEST) tests/exhaustive

test-programs: $(STAMP)
	@echo "==> the command, the documentation, and what else starts programs"
	@$(BIN)/python $(PYTEST) $(PROGRAMS)

test-rest: $(STAMP)
	@echo "==> everything else: over sockets, journals, networks"
	@$(BIN)/python $(PYTEST) tests --ignore=tests/proto --ignore=tests/exhaustive $(GAMES:%=--ignore=%) \
		$(PROGRAMS:%=--ignore=%)

$(FUZZ)/.installed: pyproject.toml
	@echo "==> installing into $(FUZZ)"
	@$(call install,$(FUZZ),$(PYTHON),fuzz)

fuzz: $(FUZZ)/.installed  ## let a coverage-guided fuzzer loose on the core, SECONDS=300
	@$(FUZZ)/bin/python -m tests.fuzz.run --seconds $(SECONDS)

machines: $(STAMP)  ## let the state machines of tests/fuzz play twenty times as many games as in make test
	@HYPOTHESIS_PROFILE=deep $(BIN)/python $(PYTEST) -o faulthandler_timeout=0 tests/fuzz

networks: $(STAMP)  ## break real networks under both adapters, in full; takes root, and 12 minutes
	@$(BIN)/python -W error -m tests.networks $(ARGS)

hostile: $(STAMP)  ## besiege both adapters as strangers can, in full; takes some eight minutes
	@$(BIN)/python -W error -m tests.hostile $(ARGS)

exhaust: $(STAMP)  ## try out everything that can be tried out to the end, and count it; this takes long
	@NETWORKIO_EXHAUST=1 $(BIN)/python $(PYTEST) -q -s -o faulthandler_timeout=0 tests/exhaustive tests/scenarios \
		tests/adapters/test_chaos.py

money: $(STAMP)  ## kill two banks KILLS=1000 times while they send money to each other, and count it
	@$(BIN)/python examples/money.py --kills $(KILLS)

crash: $(STAMP)  ## kill senders, receivers and file transfers KILLS=1000 times each, and at every system call; count
	@$(BIN)/python -W error -m tests.chaos --kills $(KILLS) $(ARGS)

model: $(STAMP)  ## visit every state of the protocol's model with SPIN
	@$(BIN)/python -m tests.model.run $(ARGS)

soak: $(STAMP)  ## play 500 million simulated events in 50,000 seeds; goes on where it stopped
	@mkdir -p build/soak
	@cd $(IN) && $(CURDIR)/$(BIN)/python -m networkio_testing run --events $(EVENTS) --least $(SEEDS) --jobs $(JOBS) \
		--json --state $(CURDIR)/build/soak/state.json --tapes $(CURDIR)/build/soak $(ARGS) \
		| tee $(CURDIR)/build/soak/summary.json

compiled: $(STAMP)  ## make a compiled copy of the simulator, which plays much more: make soak IN=build/compiled
	@mkdir -p build/compiled
	@$(BIN)/python tools/compiled build/compiled

$(BENCH)/.installed: pyproject.toml
	@echo "==> installing into $(BENCH)"
	@$(call install,$(BENCH),$(PYTHON),bench)

bench-peers: $(BENCH)/.installed bench-brokers  ## install what networkio is compared with

bench-brokers:
	@missing=$$(PATH=$$PATH:/usr/sbin; for broker in $(BROKERS); do command -v $$broker >/dev/null || echo $$broker; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "==> installing" $$missing; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
		echo "these brokers are missing, and are told as absent until you install them (Debian: apt-get install):" $$missing; \
	fi

bench: $(BENCH)/.installed  ## measure everything, and write docs/topics/performance.md anew; half an hour
	@mkdir -p build/bench
	@failed=0; for words in "asyncio --beside trio,threads" "uvloop one-way-64B one-way-1MiB-raw round-trip-64B"; do \
		$(BENCH)/bin/python benchmarks/compare.py --json --adapter $$words $(ARGS) > build/bench/$${words%% *}.json; \
		case $$? in 0) ;; 1) failed=1 ;; *) exit 2 ;; esac; \
	done; \
	$(BENCH)/bin/python -m benchmarks.page build/bench/asyncio.json build/bench/uvloop.json; \
	exit $$failed

check: $(STAMP)  ## lint with ruff, type-check with mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/mypy --strict $(SOURCES)

docs: $(STAMP)  ## build the documentation into docs/_build/html
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:  ## remove the virtual environments and whatever the tools left behind
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* .fuzz docs/_build build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
