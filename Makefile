# make sweep: everything from nothing to the table.   make test: everything from nothing to passed tests.
# make test-long: a sweep over four nodes of which two lose their power; minutes by itself.
# make slurm-up: a real SLURM of four nodes on this machine, as root on Debian.   make slurm-down: ends it.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python

.PHONY: sweep test test-long slurm-up slurm-down

sweep: $(VENV)/for-runs
	$(RUN) -m suite launch quick --on here
	$(RUN) -m analysis quick
	$(RUN) -m suite sync quick

test: $(VENV)/for-tests
	tests/system-packages
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(RUN) -m pytest -n 2 --dist loadfile

test-long: $(VENV)/for-tests
	tests/system-packages
	$(RUN) -m pytest -m long

slurm-up:
	tests/system-packages 'slurm|munge|mariadb'
	slurm/local/cluster up

slurm-down:
	slurm/local/cluster down

$(VENV)/for-runs: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check --quiet --requirement requirements.txt
	touch $@

$(VENV)/for-tests: tests/requirements.txt $(VENV)/for-runs
	$(VENV)/bin/pip install --disable-pip-version-check --quiet --requirement tests/requirements.txt
	touch $@
