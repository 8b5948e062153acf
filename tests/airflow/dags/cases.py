"""What can happen to a task between Airflow and the service, a DAG for each. The examples have the plain cases."""

import json
from datetime import timedelta

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG

WORK = "{{ dag.dag_id }}.{{ run_id }}.{{ task.task_id }}.{{ ti.map_index }}.{{ ti.max_tries - task.retries }}"
KEY = {"Idempotency-Key": WORK + ".{{ ti.try_number }}"}


def document(script, **fields):
    """A task that bears the name of its DAG, by which a test finds it."""
    document = {"name": "{{ dag.dag_id }}", "run_key": WORK, "image": "busybox:latest", "command": ["sh", "-c", script]}
    return json.dumps(document | fields)


def outputs(response):
    return response.json()["outputs"]


def case(name):
    return DAG(
        name,
        default_args={"http_conn_id": "supercargo", "retry_delay": timedelta(seconds=1)},
        max_active_runs=1,
    )


def print_log(response):
    page = response.json()
    for line in page.get("lines", []):
        print(line)
    path = f"/api/v1/tasks/{page['id']}/poll" if "id" in page else page.get("next")
    return {"endpoint": path} if path else None


# To one stream, as the engine does not keep the order of two.
FAILS = "{ echo reading orders; echo 'no such table: orders'; } >&2; exit 3"

with case("fails_waiting"):
    HttpOperator(task_id="run", endpoint="/api/v1/tasks?wait=50s", headers=KEY, data=document(FAILS))

with case("fails_deferred"):
    HttpOperator(
        task_id="run",
        endpoint="/api/v1/tasks?wait=50s",
        headers=KEY,
        # Not at once: Airflow's scheduler trips over triggers that fire before it has seen the worker's end.
        data=document("sleep 5; " + FAILS),
        deferrable=True,
        warn_on_non_idempotent=False,
    )

with case("fails_with_live_log"):
    HttpOperator(
        task_id="run", endpoint="/api/v1/tasks", headers=KEY, data=document(FAILS), pagination_function=print_log
    )

# Runs until the test cancels it.
STAYS = {"init": True, "timeouts": {"stop_grace": "1s"}}

with case("live_log"):
    HttpOperator(
        task_id="run",
        endpoint="/api/v1/tasks",
        headers=KEY,
        data=document("echo 'the first line'; sleep 600", **STAYS),
        pagination_function=print_log,
    )

with case("sensors"):
    submit = HttpOperator(
        task_id="submit",
        endpoint="/api/v1/tasks",
        headers=KEY,
        data=document("sleep 600", **STAYS),
        response_filter=lambda response: response.json()["id"],
    )
    for how in ({"mode": "poke"}, {"mode": "reschedule"}, {"deferrable": True}):
        submit >> HttpSensor(
            task_id=how.get("mode", "deferrable"),
            endpoint="/api/v1/tasks/{{ ti.xcom_pull('submit') }}/sensor",
            poke_interval=2,
            # Airflow's scheduler fails a task whose trigger fires before it has seen the end of the process that
            # deferred it; the README says so. A sensor that is tried again finds the same answer.
            retries=2,
            **how,
        )

# Tries give up before the container is over.
with case("retry_of_a_running_task"):
    HttpOperator(
        task_id="run",
        endpoint="/api/v1/tasks?wait=50s",
        headers=KEY,
        data=document("sleep 15; echo done"),
        response_filter=outputs,
        retries=9,
        execution_timeout=timedelta(seconds=6),
    )

with case("retry_of_a_failed_task"):
    HttpOperator(
        task_id="run",
        endpoint="/api/v1/tasks?wait=50s",
        headers=KEY,
        data=document("echo attempt $SUPERCARGO_ATTEMPT; [ $SUPERCARGO_ATTEMPT = 2 ]"),
        response_filter=outputs,
        retries=1,
    )


def outputs_at_second_try(response, ti):
    if ti.try_number == 1:
        raise ValueError("the answer got lost")
    return outputs(response)


with case("retry_of_a_succeeded_task"):
    HttpOperator(
        task_id="run",
        endpoint="/api/v1/tasks?wait=50s",
        headers=KEY,
        data=document("echo done"),
        response_filter=outputs_at_second_try,
        retries=1,
    )

# The test kills the triggerer while these run.
with case("triggerer_killed_on_post"):
    HttpOperator(
        task_id="run",
        endpoint="/api/v1/tasks?wait=50s",
        headers=KEY,
        data=document("sleep 20; echo done"),
        response_filter=outputs,
        deferrable=True,
        warn_on_non_idempotent=False,
    )

with case("triggerer_killed_on_put"):
    HttpOperator(
        task_id="run",
        method="PUT",
        endpoint=f"/api/v1/tasks/key:{WORK}?wait=50s",
        data=document("sleep 20; echo done"),
        response_filter=outputs,
        deferrable=True,
    )

with case("cleared"):
    HttpOperator(task_id="run", endpoint="/api/v1/tasks?wait=50s", headers=KEY, data=document("echo done"))
