# Two commands do everything on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
FUZZ_STAMP := $(VENV)/.installed-fuzz

.PHONY: help setup demo test faults simulate soak fuzz scores bench peers lint format docs audit clean

help:
	@echo "make demo   run the main job over about 20 seconds of events on embedded defaults"
	@echo "make test   run the tests"
	@echo "make faults run all fault tests and print a table: make faults [SEED=n] [ARGS='-k InfluxDB']"
	@echo "make simulate  run seeded simulations: make simulate SEEDS=1000, or one of them, SEED=7 [FAULTS=0,2]"
	@echo "make soak   run the long tests, then search the properties: make soak MINUTES=60 [SEED=n]"
	@echo "make fuzz   search the decoders for inputs that crash or hang: make fuzz MINUTES=60 [TARGET=frames] [SEED=n]"
	@echo "make scores score the alerts over 20 worlds of every scenario, of cells in four sizes: make scores [SEEDS=n]"
	@echo "make bench  run the benchmarks"
	@echo "make peers  compare other engines with this one over the same events: make peers [PEERS='esper flink'] [WORKLOADS='W1 W2/1k'] [ARGS='--seed 8']"
	@echo "make lint   check style and types"
	@echo "make audit  ask for known vulnerabilities of the pinned dependencies"
	@echo "make docs   build the documentation as a site in site/, with every link checked"
	@echo "make clean  remove .venv and everything that was built"

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Astrocyte needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned dependencies into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-virtualenv -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@echo "Compiling the correlation kernels (once) ..."
	@$(BIN)/python -m astrocyte.agents.warm
	@touch $@

demo: setup
	@$(BIN)/astrocyte demo $(ARGS)

test: setup
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

faults: setup
	@$(BIN)/python -m pytest tests/faults -m "soak or not soak" $(if $(SEED),--hypothesis-seed=$(SEED)) $(ARGS)

simulate: setup
	@$(BIN)/python -m tests.support.simulation $(if $(SEED),--seed $(SEED) $(if $(FAULTS),--faults $(FAULTS)),--seeds $(or $(SEEDS),100)) $(ARGS)

MINUTES ?= 10
soak: setup
	@$(BIN)/python -m tests.support.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

# The fuzzer's library guides the search by coverage. Without it, mutants are drawn blindly.
$(FUZZ_STAMP): $(STAMP) requirements-fuzz.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-virtualenv -r requirements-fuzz.txt \
	  && touch $@ || echo "atheris could not be installed; the search goes on without it"

fuzz: $(FUZZ_STAMP)
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(if $(TARGET),--target $(TARGET)) $(if $(SEED),--seed $(SEED)) $(ARGS)

SCORED ?= axons:30 cells:115:256 cells:115:2048 cells:115:8192 cells:115:65536 ecology:140 kernels:60 dna:60
scores: setup
	@echo "| scenario | rule | found of planted | precision | delay: median, longest | false alarms in an hour of quiet worlds |"
	@echo "|---|---|---|---|---|---|"
	@for world in $(SCORED); do set -- $$(echo $$world | tr : ' '); \
	  $(BIN)/astrocyte score $$1 --seeds $(or $(SEEDS),20) --seconds $$2 $${3:+--size $$3} --markdown $(ARGS) || exit; done

bench: setup
	@$(BIN)/astrocyte bench $(ARGS)

peers: setup
	@$(BIN)/python -m tests.peers --peers '$(PEERS)' --workloads '$(WORKLOADS)' $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

audit:
	@PYTHON=$(PYTHON) .ci/audit

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

$(DOCS_STAMP): $(STAMP) requirements-docs.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-virtualenv -r requirements-docs.txt -c requirements.lock
	@touch $@

docs: $(DOCS_STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "The site is in site/: open site/index.html. Its search needs a web server: python3 -m http.server --bind 127.0.0.1 -d site"

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-data
	find schemas simulator agents pipeline tests -name __pycache__ -type d -prune -exec rm -rf {} +
