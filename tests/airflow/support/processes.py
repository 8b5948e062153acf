"""Processes that a test starts, and free ports for them."""

import os
import signal
import socket
import subprocess
import time


def until(what, condition, seconds=30.0, pause=0.1):
    """Waits for a truthy answer and hands it back; says what it waited for where that never came."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}; the last answer was {answer!r}")
        time.sleep(pause)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Process:
    """A program with a process group of its own, and its output in a file."""

    started = []

    def __init__(self, command, log, env):
        self.log = log
        with open(log, "ab") as output:
            self.child = subprocess.Popen(
                [str(word) for word in command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        Process.started.append(self)

    @property
    def runs(self):
        return self.child.poll() is None

    def tail(self, lines=40):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self):
        """kill -9 of the whole group: nothing of it gets to say goodbye."""
        self._signal(signal.SIGKILL)
        self.child.wait()

    def end(self):
        """Asks it to end."""
        try:
            self.child.terminate()
        except ProcessLookupError:
            pass

    def _signal(self, number):
        try:
            os.killpg(self.child.pid, number)
        except ProcessLookupError:
            pass


def stop_all(processes, seconds=30):
    """All at once: each takes its time. What does not end is killed, and so are left children."""
    processes = [process for process in processes if process.runs]
    for process in processes:
        process.end()
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        process.kill()
