# Everything a developer or CI does here. `make help` lists it.
SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
VENV := $(CURDIR)/.venv
COLLECTION := build/collections/ansible_collections/ananke/jupyterhub
export PATH := $(VENV)/bin:$(PATH)
export PYTHONPATH := $(CURDIR)/tests/support
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
.DEFAULT_GOAL := help

.PHONY: help setup demo demo-down clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.complete ## Debian packages, a virtual environment, the collection on Ansible's path

.venv/.complete: requirements-dev.txt tests/support/setup
	tests/support/setup "$(PYTHON)" "$(VENV)" "$(COLLECTION)"
	touch $@

demo: setup ## three real hubs and a test LMS on a test machine of this machine
	python -m demo up

demo-down: setup ## remove the demo
	python -m demo down

clean: ## remove the virtual environment and everything built (machines first: make demo-down)
	rm -rf build .venv
