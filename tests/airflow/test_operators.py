"""HttpOperator and its trigger against the service: what is sent twice runs once."""

import asyncio
import runpy
import uuid

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk.exceptions import TaskDeferred
from conftest import EXAMPLES
from support import operators
from support.operators import WORK
from support.processes import until

PUT = {"method": "PUT", "endpoint": f"/api/v1/tasks/key:{WORK}?wait=50s", "headers": {}}
both_methods = pytest.mark.parametrize("how", [{}, PUT], ids=["post", "put"])


@pytest.fixture
def name():
    return f"case-{uuid.uuid4()}"


def running(service, engine, name):
    """Waits until the container of the task of that name runs."""
    items = until(f"the task {name} is there", lambda: service.api("/tasks", params={"name": name})["items"])
    engine.runs(items[0]["id"])


def one_container(service, engine, name):
    task = service.task(name)
    assert len(task["attempts"]) == 1, task
    assert engine.started(task["id"]) == 1


@both_methods
def test_a_triggerer_restart_makes_no_second_container(service, engine, connection, name, how):
    operator = operators.operator(name, "sleep 3; echo done", deferrable=True, **how)
    trigger = operators.defer(operator)
    event = asyncio.run(operators.fire_after_restart(trigger, lambda: running(service, engine, name)))
    assert operators.resume(operator, event) == {"last_line": "done"}
    one_container(service, engine, name)


@both_methods
def test_what_aiohttp_sends_again_makes_no_second_container(service, engine, lossy, name, how):
    operator = operators.operator(name, "echo done", deferrable=True, **how)
    event = asyncio.run(operators.fire(operators.defer(operator)))
    assert operators.resume(operator, event) == {"last_line": "done"}
    # The hook did send it again.
    assert [(method, status) for method, status, _ in lossy.seen] == [(operator.method, 200)] * 2
    one_container(service, engine, name)


@both_methods
def test_a_lost_answer_and_a_retry_make_no_second_container(service, engine, lossy, name, how):
    lossy.close = True
    operator = operators.operator(name, "echo done", **how)
    with pytest.raises(requests.ConnectionError):
        operators.execute(operator, attempt=1)
    assert operators.execute(operator, attempt=2) == {"last_line": "done"}
    one_container(service, engine, name)


def test_a_request_sent_again_after_a_failure_is_told_of_that_failure(service, engine, connection, name):
    operator = operators.operator(name, "echo attempt $SUPERCARGO_ATTEMPT; exit 3")
    for attempt in (1, 1, 2, 2):
        with pytest.raises(AirflowException, match=f"^424:.*: attempt {attempt}$"):
            operators.execute(operator, attempt)
    task = service.task(name)
    assert [attempt["number"] for attempt in task["attempts"]] == [1, 2]
    assert engine.started(task["id"]) == 2


@both_methods
def test_a_wait_goes_on_over_redirects(service, engine, connection, name, how):
    endpoint = how.get("endpoint", "/api/v1/tasks?wait=50s").replace("50s", "1s")
    operator = operators.operator(name, "sleep 3; echo done", **(how | {"endpoint": endpoint}))
    assert operators.execute(operator) == {"last_line": "done"}
    one_container(service, engine, name)


def test_a_deferred_wait_goes_on_as_in_the_example(service, engine, connection, name):
    example = runpy.run_path(str(EXAMPLES / "deferrable.py"))
    how = PUT | {"endpoint": PUT["endpoint"].replace("50s", "1s"), "extra_options": example["ONE_WAIT"]}
    operator = operators.operator(
        name, "sleep 3; echo done", deferrable=True, response_filter=example["outputs"], **how
    )
    trigger, hops = operators.defer(operator), 0
    while trigger:
        event = asyncio.run(operators.fire(trigger))
        try:
            result, trigger = operators.resume(operator, event), None
        except TaskDeferred as deferred:
            trigger, hops = deferred.trigger, hops + 1
    assert result == {"last_line": "done"}
    assert hops > 1
    one_container(service, engine, name)


def test_the_error_of_a_failure_has_its_cause_and_the_end_of_its_log(connection, name):
    operator = operators.operator(name, "echo 'no such table: orders' >&2; exit 3", deferrable=True)
    event = asyncio.run(operators.fire(operators.defer(operator)))
    with pytest.raises(AirflowException) as error:
        operators.resume(operator, event)
    assert str(error.value) == (
        "Unexpected error in the operation: 424:task failed (exit_nonzero): exited with code 3; "
        "its log ends: no such table: orders"
    )


def test_a_flat_dict_as_data_runs(connection, name):
    data = {"name": name, "image": "busybox:latest", "command": "echo done"}
    assert operators.execute(operators.operator(name, "", data=data)) == {"last_line": "done"}


def test_a_dict_with_objects_inside_is_refused_with_the_fix(connection, name):
    data = {"image": "busybox:latest", "command": "true", "env": {"NAME": "value"}}
    with pytest.raises(AirflowException, match=r"^422:.*data=json\.dumps"):
        operators.execute(operators.operator(name, "", data=data))


def test_a_wrong_token_is_refused_with_the_fix(service, monkeypatch, name):
    monkeypatch.setenv("AIRFLOW_CONN_SUPERCARGO", service.url.replace("http://", "http://airflow:wrong@"))
    with pytest.raises(AirflowException, match="^401:.*token"):
        operators.execute(operators.operator(name, "true"))


@pytest.mark.parametrize("deferrable", [False, True], ids=["waiting", "deferred"])
def test_the_token_as_a_password_works(service, monkeypatch, name, deferrable):
    monkeypatch.setenv("AIRFLOW_CONN_SUPERCARGO", service.url.replace("http://", f"http://airflow:{service.token}@"))
    operator = operators.operator(name, "echo done", deferrable=deferrable)
    if deferrable:
        result = operators.resume(operator, asyncio.run(operators.fire(operators.defer(operator))))
    else:
        result = operators.execute(operator)
    assert result == {"last_line": "done"}
