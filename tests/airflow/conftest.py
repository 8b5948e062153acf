"""The service, the engine and a whole Airflow, once for all tests."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))



def end(*_):
    """A run that is told to end stops what it started, and is not disturbed by being told twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, end)

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples/airflow"

# Before anything of Airflow is imported: its operators also run in this process, without a database.
HOME = Path(tempfile.mkdtemp(prefix="supercargo-airflow-home."))
for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]
os.environ["AIRFLOW_HOME"] = str(HOME)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["NO_PROXY"] = "*"

from support.airflow import Airflow, prepare_dags  # noqa: E402
from support.engine import Engine  # noqa: E402
from support.processes import Process, stop_all  # noqa: E402
from support.proxy import LossyProxy  # noqa: E402
from support.service import Service  # noqa: E402


def pytest_unconfigure():
    # What a teardown left that was interrupted.
    stop_all(Process.started)
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def engine():
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def service(engine):
    service = Service()
    yield service
    service.stop()


@pytest.fixture(scope="session")
def airflow(service):
    """Every DAG of the examples and of the cases, in an Airflow that runs."""
    dags = prepare_dags(HOME / "dags", EXAMPLES, HERE / "dags")
    airflow = Airflow(HOME, dags, service.connection())
    yield airflow
    airflow.stop()


@pytest.fixture
def connection(service, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_SUPERCARGO", service.connection())


@pytest.fixture
def lossy(service, monkeypatch):
    """The connection goes through a proxy that loses the answers to the first submits."""
    with LossyProxy(service.url) as proxy:
        monkeypatch.setenv("AIRFLOW_CONN_SUPERCARGO", service.connection(proxy.url))
        yield proxy
