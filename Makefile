# Everything starts here; `make` alone says what there is. Needs Python 3.11 or newer, no more.

.DEFAULT_GOAL := help
.PHONY: help demo slurm-demo slurm-ready test bench fuzz lint types fmt clean venv venv-dev venv-fuzz test-ready

# Servers live in sbin, which an ordinary user's PATH may lack.
export PATH := $(PATH):/usr/sbin:/sbin

help:
	@echo 'make demo                      see an image come and run, on this machine, in a minute'
	@echo 'make demo REF=alpine:3         the same with an image of your choice'
	@echo 'make demo KEEP=1               and stay up, to look at the dashboard'
	@echo 'make slurm-demo                a batch job of a real Slurm, in an image on three nodes (root)'
	@echo 'make slurm-demo KEEP=1         and stay up, to submit your own'
	@echo 'make test                      run every test, against real servers where they exist'
	@echo "make test ARGS='-k reference'  run some"
	@echo "make bench                     Dray beside its peers: a quiet machine, root, an hour"
	@echo "make bench ARGS='--help'       what can be chosen"
	@echo 'make fuzz                      look for inputs that parsers fail at, a minute for each'
	@echo "make fuzz ARGS='squashfs 600'  for one of them, so many seconds"
	@echo 'make lint types fmt            ruff check and format --check; mypy; format the code'
	@echo 'make clean                     remove the demo'\''s and bench'\''s data, and caches of tools'

demo: venv
	@.venv/bin/python -m deploy.demo $(if $(REF),--ref '$(REF)') $(if $(KEEP),--keep)

slurm-demo: venv slurm-ready
	@.venv/bin/python -m deploy.slurm_demo $(if $(KEEP),--keep)

test: test-ready
	@.venv/bin/pytest @tests/at_once.args $(ARGS)

bench: test-ready
	@.venv/bin/python -m bench.convert $(ARGS)

fuzz: venv-fuzz
	@.venv/bin/python -m tests.fuzz $(ARGS)

lint: venv-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: venv-dev
	.venv/bin/mypy

fmt: venv-dev
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

clean:
	rm -rf .demo .slurm-demo .bench .fuzz .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

venv:
	@deploy/bootstrap/venv.sh all

venv-dev:
	@deploy/bootstrap/venv.sh dev

venv-fuzz:
	@deploy/bootstrap/venv.sh fuzz

test-ready: venv-dev
	@deploy/bootstrap/test_tools.sh

slurm-ready:
	@deploy/bootstrap/slurm_tools.sh
