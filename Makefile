# The commands of a developer's day. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help setup demo run test soak test-compose test-deploy test-airflow test-openapi bench fmt lint prepare clean-dev

# More arguments for the command behind a target: make test ARGS='--test it claims'
ARGS ?=
supercargo = $${CARGO_TARGET_DIR:-target}/release/supercargo

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install and start what is missing (packages, Docker engine, base image)
	@scripts/setup

demo: setup ## build it, start it, run real work in containers and show it (on a cluster: ARGS='--target k8s')
	cargo build --release --locked
	scripts/demo $(ARGS)

run: setup ## build and start the service, and stay (state in .dev/)
	cargo build --release --locked
	@data=$$(scripts/data-dir) && exec "$(supercargo)" serve --data-dir "$$data" $(ARGS)

test: setup ## run every test
	scripts/test-services cargo test --locked --features failpoints $(ARGS)

soak: setup ## end the service at each of its steps, again and again, and 200 times under load
	SUPERCARGO_TEST_SOAK=1 scripts/test-services cargo test --locked --features failpoints --test it crash:: $(ARGS) -- --nocapture

test-compose: setup ## bring docker-compose.yaml up with a built image, and use it
	cargo build --locked
	scripts/test-compose

test-deploy: setup ## apply deploy/kubernetes to the cluster of KUBECONFIG, and use the service that runs there
	cargo build --locked
	scripts/test-deploy

test-airflow: setup ## run the DAGs of examples/airflow and more in an Airflow from PyPI (one test: ARGS='-k skip')
	cargo build --locked
	@environment=$$(scripts/airflow-env) && "$$environment/bin/python" -m pytest tests/airflow $(ARGS)

test-openapi: ## hold the OpenAPI document against the service: Schemathesis, generated clients (one test: ARGS='-k python')
	cargo build --locked
	scripts/test-openapi $(ARGS)

bench: setup ## run the measurements of benches/, a JSON line for each (a smoke run: ARGS='-- --quick')
	cargo bench --locked --bench '*' $(ARGS)

fmt: ## format the sources
	cargo fmt

lint: ## check the format, and clippy without a warning
	cargo fmt --check
	cargo clippy --locked -- -D warnings
	cargo clippy --locked --all-targets --all-features -- -D warnings

prepare: ## write the generated files: .sqlx/ and openapi/
	scripts/sqlx-prepare
	cargo run --locked --quiet -- openapi

clean-dev: ## stop what these targets left running and remove .dev/
	scripts/clean-dev
