"""A whole Airflow: its own scheduler, triggerer, DAG processor and API server, on a SQLite of their own."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import requests

from .processes import Process, free_port, stop_all, until

ENDED = {"success", "failed"}


def settings(home, dags, connection):
    """The environment of every Airflow program; nothing of the caller's own Airflow gets in."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    api, worker_logs, trigger_logs = free_port(), free_port(), free_port()
    ours = {
        "AIRFLOW_HOME": home,
        "AIRFLOW_CONN_SUPERCARGO": connection,
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{api}",
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
        "AIRFLOW__CORE__DAGS_FOLDER": dags,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{api}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__CORE__LOAD_EXAMPLES": False,
        "AIRFLOW__CORE__PARALLELISM": 4,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": trigger_logs,
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": worker_logs,
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": 1,
        # So that another triggerer takes over soon after one was killed.
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": 1,
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": 5,
        # Nothing that asks the world outside.
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": False,
        "NO_PROXY": "*",
        "PYTHONUNBUFFERED": 1,
    }
    return env | {name: str(value) for name, value in ours.items()}, api


class Airflow:
    def __init__(self, home, dags, connection):
        self.home = home
        self.env, port = settings(home, dags, connection)
        self.url = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.programs = {}
        self._airflow("db", "migrate")
        try:
            self.start("api-server", "--host", "127.0.0.1", "--port", port, "--workers", 1)
            for name in ("scheduler", "dag-processor", "triggerer"):
                self.start(name)
            self._log_in()
        except BaseException:
            self.stop()
            raise

    def start(self, name, *arguments):
        self.programs[name] = Process(
            [*self._program(), name, *arguments], Path(self.home) / f"{name}.log", self.env
        )

    def stop(self):
        # Nothing of it is worth a long goodbye.
        stop_all(self.programs.values(), 10)

    def _program(self):
        return [sys.executable, "-m", "airflow"]

    def _airflow(self, *arguments):
        result = subprocess.run(
            [*self._program(), *arguments], env=self.env, capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stdout + result.stderr

    def _log_in(self):
        def token():
            self.check()
            try:
                return requests.get(f"{self.url}/auth/token", timeout=5).json()["access_token"]
            except requests.RequestException:
                return None

        self.session.headers["Authorization"] = "Bearer " + until("the API of Airflow answers", token, 120)

    def check(self):
        for name, process in self.programs.items():
            assert process.runs, f"airflow {name} has ended:\n{process.tail()}"

    def api(self, path, method="GET", **arguments):
        answer = self.session.request(method, f"{self.url}/api/v2{path}", timeout=30, **arguments)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def trigger(self, dag):
        """Starts a run of the DAG as soon as Airflow knows it; hands back its id."""

        def known():
            self.check()
            errors = self.api("/importErrors")["import_errors"]
            assert not errors, errors
            return dag in [item["dag_id"] for item in self.api("/dags", params={"limit": 100})["dags"]]

        until(f"Airflow knows the DAG {dag}", known, 120, 0.5)
        return self.api(f"/dags/{dag}/dagRuns", "POST", json={"logical_date": None})["dag_run_id"]

    def tasks(self, dag, run):
        """Task id → task instance."""
        items = self.api(f"/dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {item["task_id"]: item for item in items}

    def finish(self, dag, run, seconds=180):
        """Waits for the end of the run; hands back its state."""

        def state():
            self.check()
            state = self.api(f"/dags/{dag}/dagRuns/{run}")["state"]
            return state if state in ENDED else None

        return until(f"the run {run} of {dag} ends", state, seconds, 0.5)

    def xcom(self, dag, run, task):
        return self.api(
            f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value", params={"deserialize": True}
        )["value"]

    def log(self, dag, run, task, attempt=1):
        """The messages of the log of the task instance, with those of the errors."""
        path = f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{attempt}"
        answer = self.session.get(f"{self.url}/api/v2{path}", params={"full_content": True}, timeout=30)
        # Not there before the first try.
        lines = answer.json()["content"] if answer.ok else []
        messages = []
        for line in lines:
            messages.append(line["event"])
            messages += [f"{error['exc_type']}: {error['exc_value']}" for error in line.get("error_detail") or []]
        return messages

    def clear(self, dag, run):
        """As a user does who wants the tasks of the run to run again."""
        self.api(
            f"/dags/{dag}/clearTaskInstances", "POST", json={"dag_run_id": run, "dry_run": False, "only_failed": False}
        )


def prepare_dags(target, *sources):
    """A folder of DAGs with copies of those files."""
    target.mkdir()
    for source in sources:
        for path in source.glob("*.py"):
            shutil.copy(path, target)
    return target
