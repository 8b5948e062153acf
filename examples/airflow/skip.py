"""An exit code of the container that means: nothing to do. The Airflow task is skipped, not failed."""

import json

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException

# Names the work: a retry finds the container that runs already, clearing the task begins anew.
WORK = "{{ dag.dag_id }}.{{ run_id }}.{{ task.task_id }}.{{ ti.map_index }}.{{ ti.max_tries - task.retries }}"

TASK = {
    "run_key": WORK,
    "image": "busybox:latest",
    "command": ["sh", "-c", "echo no new files today; exit 99"],
    "skip_on_exit_codes": [99],
}


# --8<-- skip
def outputs(response):
    task = response.json()
    if task["state"] == "skipped":
        raise AirflowSkipException(f"exit code {task['exit_code']}")
    return task["outputs"]


with DAG("supercargo_skip"):
    HttpOperator(
        task_id="load_new_files",
        http_conn_id="supercargo",
        endpoint="/api/v1/tasks?wait=50s",
        headers={"Idempotency-Key": WORK + ".{{ ti.try_number }}"},
        data=json.dumps(TASK),
        response_filter=outputs,
    )
# --8<-- end
