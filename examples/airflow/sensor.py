"""Submit, wait with a sensor, fetch the result: for containers that run for hours."""

import json

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG

# Names the work: a retry finds the container that runs already, clearing the task begins anew.
WORK = "{{ dag.dag_id }}.{{ run_id }}.{{ task.task_id }}.{{ ti.map_index }}.{{ ti.max_tries - task.retries }}"
TASK = {"run_key": WORK, "image": "busybox:latest", "command": ["sh", "-c", "sleep 15; echo done"]}

with DAG("supercargo_sensor", default_args={"http_conn_id": "supercargo", "retries": 2}):
    # --8<-- sensor
    submit = HttpOperator(
        task_id="submit",
        endpoint="/api/v1/tasks",
        headers={"Idempotency-Key": WORK + ".{{ ti.try_number }}"},
        data=json.dumps(TASK),
        response_filter=lambda response: response.json()["id"],
    )
    path = "/api/v1/tasks/{{ ti.xcom_pull('submit') }}"
    wait = HttpSensor(task_id="wait", endpoint=path + "/sensor", deferrable=True, poke_interval=5)
    result = HttpOperator(task_id="result", endpoint=path + "/result", method="GET", response_filter=lambda r: r.json())
    submit >> wait >> result
    # --8<-- end
