"""Runs operators in this process, as Airflow's worker and triggerer run them."""

import asyncio
import json
from importlib import import_module
from types import SimpleNamespace

import pytest
from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

WORK = "{{ dag.dag_id }}.{{ run_id }}.{{ task.task_id }}.{{ ti.map_index }}"


def operator(name, script, **arguments):
    """An operator that submits and waits, with the keys that the examples have; `fields` go into the document."""
    fields = arguments.pop("fields", {})
    document = {"name": name, "run_key": WORK, "image": "busybox:latest", "command": ["sh", "-c", script]}
    defaults = {
        "endpoint": "/api/v1/tasks?wait=50s",
        "headers": {"Idempotency-Key": WORK + ".{{ ti.try_number }}"},
        "data": json.dumps(document | fields),
        "response_filter": lambda response: response.json()["outputs"],
        "warn_on_non_idempotent": False,
    }
    with DAG(name):
        return HttpOperator(task_id="run", http_conn_id="supercargo", **(defaults | arguments))


def context(operator, attempt):
    ti = SimpleNamespace(map_index=-1, try_number=attempt, max_tries=0)
    return {"dag": operator.dag, "run_id": "manual__2026-11-21T00:00:00+00:00", "task": operator, "ti": ti}


def execute(operator, attempt=1):
    """One try of a task: renders a copy of the operator and executes it."""
    operator = operator.prepare_for_execution()
    values = context(operator, attempt)
    operator.render_template_fields(values)
    return operator.execute(values)


def defer(operator, attempt=1):
    """The try of a deferrable operator up to where it hands over to the triggerer."""
    with pytest.raises(TaskDeferred) as deferred:
        execute(operator, attempt)
    return deferred.value.trigger


def resume(operator, event, attempt=1):
    """What a worker does with the event of the trigger."""
    return operator.execute_complete(context(operator, attempt), event)


def stored(trigger):
    """The trigger as a triggerer gets it: from what Airflow's database kept of it."""
    path, arguments = trigger.serialize()
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))


async def fire(trigger):
    """Runs a trigger to its event."""
    async for event in stored(trigger).run():
        return event.payload


async def fire_after_restart(trigger, interrupt):
    """Runs a trigger, cancels it in the midst of its request as soon as `interrupt` returns, runs it again."""
    first = asyncio.create_task(fire(trigger))
    await asyncio.to_thread(interrupt)
    assert not first.done(), "the trigger was over before it could be interrupted"
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    return await fire(trigger)
