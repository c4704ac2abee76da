# make demo: environment if there is none, then the main job on synthetic slides.
# make test: the same environment, then every test that needs no GPU: first the core with Ray kept
# from being imported, then what runs on it. Reports are looked at in Debian's chromium, which is
# installed where that can be; elsewhere those tests are skipped, and pytest says so.
# make test-faults: minutes of whole runs whose processes are killed, nodes that go and come, and
# thousands of damaged files.
# make test-docs: minutes in which every command that the documentation prints is run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
APT := DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::http::Timeout=20

.PHONY: demo test browser test-faults test-docs check format bench clean

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/rayfed-hn demo

browser:
	@command -v chromium || command -v google-chrome || command -v chromium-browser || { \
		test "$$(id -u)" = 0 && command -v apt-get && $(APT) update && $(APT) install -y \
		--no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 \
		|| echo "No chromium, and it cannot be installed here: no test looks at pages in a browser"

test: $(READY) browser
	RAYFED_HN_WITHOUT_RAY=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal \
		-m 'not ray and not gpu and not faults and not docs'
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'ray and not gpu and not faults and not docs'

test-faults: $(READY)
	$(BIN)/python -m pytest -s -m faults tests/faults --ignore tests/faults/test_lost_nodes.py
	$(BIN)/python -m pytest -m faults tests/faults/test_lost_nodes.py
	RAYFED_HN_MALFORMED=8 $(BIN)/python -m pytest tests/boundary/test_malformed.py

test-docs: $(READY)
	$(BIN)/python -m pytest -m docs tests/docs

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python benchmarks/slides.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/asynchrony.py
	$(BIN)/python benchmarks/histology.py
	$(BIN)/python benchmarks/kill_embed.py
	$(BIN)/python benchmarks/server_step.py
	$(BIN)/python benchmarks/cohort.py
	$(BIN)/python benchmarks/rounds.py
	$(BIN)/python benchmarks/audit.py

clean:
	rm -rf $(VENV) build dist *.egg-info
