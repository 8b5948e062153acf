"""The real service, with a data directory, a Postgres and a port of its own, and without an engine."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def program():
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    path = Path(os.environ.get("SUPERCARGO_BIN") or Path(target) / "debug/supercargo")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: run cargo build, or name a built one with SUPERCARGO_BIN")
    return path


class Service:
    def __init__(self):
        # Where the user that Postgres runs as may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="supercargo-openapi.", dir="/var/tmp"))
        self.folder.chmod(0o711)
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o711)
        self.log = self.folder / "service.log"
        env = {name: value for name, value in os.environ.items() if not name.startswith("SUPERCARGO_")}
        env.pop("DATABASE_URL", None)
        # Whatever is made up here must not reach a real engine.
        env["DOCKER_HOST"] = f"unix://{self.folder}/no-engine.sock"
        env["SUPERCARGO__DEFAULT_TARGET"] = "simulated"
        env["SUPERCARGO__TELEMETRY__LOG"] = "warn"
        # Every operation is tried without a token: more than an honest client ever is in a second.
        env["SUPERCARGO__HTTP__FAILED_AUTH_LIMIT"] = "0"
        with open(self.log, "ab") as output:
            self.child = subprocess.Popen(
                [program(), "serve", "--data-dir", self.data, "--listen", "127.0.0.1:0"],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            print(self.tail())
            self.stop()
            raise
        self.token = (self.data / "admin.token").read_text().strip()

    def _wait(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise RuntimeError("the service has ended")
            try:
                self.url = json.loads((self.data / "service.json").read_text())["url"]
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return
            except (OSError, ValueError, urllib.error.URLError):
                time.sleep(0.1)
        raise TimeoutError("the service is not ready within 60 s")

    def tail(self, lines=40):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
