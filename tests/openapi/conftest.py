"""The service, once for all tests."""

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# A test run that is told to end stops what it started.
signal.signal(signal.SIGTERM, signal.default_int_handler)

from support.service import Service  # noqa: E402


@pytest.fixture(scope="session")
def service():
    service = Service()
    yield service
    service.stop()
