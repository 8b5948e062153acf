"""What the Docker engine itself says it started: its events, by its own API."""

import http.client
import json
import os
import socket
import threading
import time
from urllib.parse import quote, urlparse

from .processes import until

TASK = "supercargo.dev/task"


class _Connection(http.client.HTTPConnection):
    def __init__(self):
        self.address = urlparse(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
        super().__init__(self.address.hostname or "engine", self.address.port or 2375)

    def connect(self):
        if self.address.scheme != "unix":
            return super().connect()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.address.path)


class Engine:
    """Listens from the beginning, as the engine forgets events."""

    def __init__(self):
        self.events = []
        filters = {"type": ["container"], "label": [TASK], "event": ["start", "destroy"]}
        self.connection = _Connection()
        # From this second on: an engine that has nothing to tell does not answer at all.
        self.connection.request("GET", f"/events?since={int(time.time())}&filters={quote(json.dumps(filters))}")
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self):
        try:
            answer = self.connection.getresponse()
            while line := answer.readline():
                event = json.loads(line)
                self.events.append((event["Actor"]["Attributes"][TASK], event["Action"]))
        except (OSError, ValueError, AttributeError):
            # The connection was closed.
            return

    def count(self, task, action):
        return self.events.count((task, action))

    def runs(self, task):
        """Waits until a container of the task runs."""
        until(f"a container of the task {task} starts", lambda: self.count(task, "start"))

    def started(self, task):
        """How many containers were started for a task that is over, all of which are gone."""
        until(
            f"every container of the task {task} is gone",
            lambda: 0 < self.count(task, "start") == self.count(task, "destroy"),
        )
        return self.count(task, "start")

    def close(self):
        if self.connection.sock:
            self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        self.thread.join(5)
