# make sweep: everything from nothing to the table.   make test: everything from nothing to passed tests.
# make test-long: what takes minutes by itself, as a sweep over four nodes of which two lose their power, and 200
#                 examples of each property where `make test` tries 25; 12 minutes on two cores.
# make campaign FAULTS=1000 SEED=0: faults drawn by seed, over this machine, torchrun and a real SLURM; hours.
#                 MINUTES=45 ends after 45 minutes, and the same command goes on; ON="here torchrun" needs no SLURM.
# make reproduce WEIGHTS=resnet20-12fca82f.th: every committed number of results/ again, its hours said before it starts.
# make times: tests/times.md, how long the tests of each file took in the last `make test`.
# make mlflow-server: MLflow on PostgreSQL with a login, on this machine.   make mlflow-server-down: ends it.
# make slurm-up: a real SLURM of four nodes on this machine, as root on Debian.   make slurm-down: ends it.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
# Bytecode of what is imported is kept; pip would make that of all 17,000 files, which takes a core more than a minute.
PIP    := $(VENV)/bin/pip install --disable-pip-version-check --quiet --no-compile
export PYTHONDONTWRITEBYTECODE :=

.PHONY: sweep reproduce test times test-long campaign mlflow-server mlflow-server-down slurm-up slurm-down

sweep: $(VENV)/for-runs
	$(VENV)/bin/suite launch quick --on here
	$(VENV)/bin/suite report quick
	$(VENV)/bin/suite sync quick

reproduce: $(VENV)/for-tests
	$(RUN) -m benchmarks.reproduce --weights $(or $(WEIGHTS),resnet20-12fca82f.th)

test: $(VENV)/for-tests
	tests/system-packages
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m pytest --collect-only --quiet >/dev/null & $(VENV)/bin/mypy && wait  # bytecode for the workers meanwhile
	$(RUN) -m pytest -n 3 --no-loadscope-reorder --junitxml=$(VENV)/times.xml

times:
	$(RUN) tests/times.py $(VENV)/times.xml > tests/times.md

test-long: $(VENV)/for-tests
	tests/system-packages
	$(RUN) -m pytest -n 3 --no-loadscope-reorder -m "long or hypothesis" --hypothesis-profile=long

campaign: $(VENV)/for-tests
	tests/system-packages
	PYTHONPATH=tests:. $(RUN) -m campaign --faults $(or $(FAULTS),1000) --seed $(or $(SEED),0) \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(ON),--on $(ON))

mlflow-server: $(VENV)/for-mlflow-server
	tests/system-packages postgresql
	mlflow-server/server up $(STATE)

mlflow-server-down:
	mlflow-server/server down $(STATE)

slurm-up:
	tests/system-packages 'slurm|munge|mariadb'
	slurm/local/cluster up

slurm-down:
	slurm/local/cluster down

$(VENV)/for-runs: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --requirement requirements.txt
	$(PIP) --no-deps --editable .
	touch $@

$(VENV)/for-mlflow-server: mlflow-server/requirements.txt $(VENV)/for-runs
	$(PIP) --requirement mlflow-server/requirements.txt
	touch $@

$(VENV)/for-tests: tests/requirements.txt mlflow-server/requirements.txt $(VENV)/for-runs
	$(PIP) --requirement tests/requirements.txt
	touch $@
