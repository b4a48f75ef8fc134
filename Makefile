# Everything a developer or CI does here. `make help` lists it.
SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
VENV := $(CURDIR)/.venv
COLLECTION := build/collections/ansible_collections/ananke/jupyterhub
export PATH := $(VENV)/bin:$(PATH)
export PYTHONPATH := $(CURDIR)/tests/support:$(CURDIR)/build/collections
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# containers of CI often forbid it, and every ansible-playbook would compile all of Ansible: twice the time to start
export PYTHONDONTWRITEBYTECODE :=
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: .venv/.complete ## Debian packages, a virtual environment, the collection on Ansible's path

.venv/.complete: requirements-dev.txt tests/support/setup tests/support/packages
	tests/support/setup "$(PYTHON)" "$(VENV)" "$(COLLECTION)"
	touch $@

.PHONY: demo demo-down
demo: setup ## three real hubs and a test LMS on a test machine of this machine
	python -m demo up

demo-down: setup ## remove the demo
	python -m demo down

.PHONY: test lint sanity unit integration late bookworm site year hardened vm vm-disks power lynis
test: setup ## all tests: what needs both processors first; then the virtual machine, which must not wait, beside what mostly waits
	status=0; export ANANKE_KEEP=1; \
	$(MAKE) --jobs=2 --keep-going --output-sync=target site bookworm lint vm-disks || status=$$?; \
	$(MAKE) --jobs=3 --keep-going --output-sync=line vm hardened late year || status=$$?; \
	env -u ANANKE_KEEP python -m demo release; exit $$status

lint: setup ## ansible-lint, yamllint, ruff, mypy, changelog fragments
	ruff check .
	ruff format --check .
	mypy
	yamllint --strict .
	ansible-lint
	antsibull-changelog lint

unit: setup ## pure logic, and the hub's configuration in a real JupyterHub
	pytest

late: setup # what waits for nothing, beside what mostly waits
	nice -n 10 $(MAKE) --keep-going unit sanity integration

sanity: setup ## ansible-test sanity
	tests/support/sanity

integration: setup ## the conda channel in clean containers
	pytest tests/integration

# Whole runs on test machines: check mode, converge, idempotence, verify.
bookworm: setup ## hubs on a hardened Debian 12, through killed runs; what is inside hubs, with LMS and browser
	molecule test --scenario-name bookworm

site: setup ## hubs on a hardened Debian 13, with the end-to-end tests that bookworm leaves
	molecule test --scenario-name site

year: setup ## updates, upkeep, users who leave, hubs of the former system, classes, and what fails meanwhile
	nice -n 5 molecule test --scenario-name year

hardened: setup ## every role on one machine, seen from elsewhere on its network
	nice -n 5 molecule test --scenario-name hardened

vm: setup ## what needs a kernel: limits, settings, records, homes, quotas, reboots, on a virtual machine
	pytest --capture=no --durations=25 --reruns=1 --max-suite-reruns=3 --rerun-show-tracebacks --ignore=tests/vm/test_lynis.py --ignore=tests/vm/test_power.py tests/vm

power: setup ## power of a virtual machine cut while it replaces a hub; not part of `make test`, which cuts that of a container
	pytest --capture=no tests/vm/test_power.py

vm-disks: setup ## what `make vm` needs and the computer makes faster than the virtual machine
	python tests/vm/disks.py

lynis: setup ## what Lynis says of a virtual machine with every role: build/lynis.json; not part of `make test`
	ANANKE_VM_ROLES=all pytest --capture=no tests/vm/test_lynis.py

.PHONY: bench
bench: setup ## what hubs, hardened machines, owners of large homes, kernels, features, classes and backups cost, against bare commands: build/*bench.json
	python -m bench
	python -m machine_bench
	python -m ownership_bench
	python -m inside_bench
	python -m year_bench

.PHONY: clean
clean: ## remove the virtual environment and everything built (machines first: make demo-down)
	rm -rf build .venv
