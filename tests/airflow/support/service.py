"""The real service, with a data directory, a Postgres and a port of its own."""

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path

import requests

from .processes import Process, stop_all, until

ROOT = Path(__file__).resolve().parents[3]


def program():
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    path = Path(os.environ.get("SUPERCARGO_BIN") or Path(target) / "debug/supercargo")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: run cargo build, or name a built one with SUPERCARGO_BIN")
    return path


class Service:
    def __init__(self):
        built = program()
        # Where the user that Postgres runs as may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="supercargo-airflow.", dir="/var/tmp"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.chmod(0o711)
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o711)
        env = {name: value for name, value in os.environ.items() if not name.startswith("SUPERCARGO_")}
        env.pop("DATABASE_URL", None)
        self.process = Process(
            [built, "serve", "--data-dir", self.data, "--listen", "127.0.0.1:0"],
            self.folder / "service.log",
            env,
        )
        try:
            until("the service is ready", self._ready, 60)
        except TimeoutError as error:
            tail = self.process.tail()
            self.stop()
            raise RuntimeError(f"the service does not start:\n{tail}") from error
        self.token = (self.data / "admin.token").read_text().strip()

    def _ready(self):
        if not self.process.runs:
            raise TimeoutError("it has ended")
        try:
            self.url = json.loads((self.data / "service.json").read_text())["url"]
            return requests.get(f"{self.url}/readyz", timeout=5).ok
        except (OSError, ValueError):
            return False

    def api(self, path, method="GET", **arguments):
        answer = requests.request(
            method, f"{self.url}/api/v1{path}", headers={"Authorization": f"Bearer {self.token}"}, timeout=60, **arguments
        )
        return answer.json()

    def task(self, name):
        """The one task of that name, whole."""
        items = self.api("/tasks", params={"name": name})["items"]
        assert len(items) == 1, items
        return self.api(f"/tasks/{items[0]['id']}")

    def cancel(self, name):
        self.api(f"/tasks/{self.task(name)['id']}/cancel", "POST")

    def connection(self, url=None):
        """It as an Airflow connection, as the README says to make one."""
        extra = {"Authorization": f"Bearer {self.token}"}
        return json.dumps({"conn_type": "http", "host": url or self.url, "extra": extra})

    def stop(self):
        stop_all([self.process])
