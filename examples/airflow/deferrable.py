"""Deferred to the triggerer: no worker is occupied while the container runs, for as long as it takes."""

import json

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.triggers.http import HttpTrigger
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

# Names the work: a triggerer that starts again finds the container that runs, clearing the task begins anew.
WORK = "{{ dag.dag_id }}.{{ run_id }}.{{ task.task_id }}.{{ ti.map_index }}.{{ ti.max_tries - task.retries }}"

COUNT = "sleep 10; printf '{\"words\": %d}' $(echo to be or not to be | wc -w) > $SUPERCARGO_OUTPUT"


# --8<-- deferrable
ONE_WAIT = {"allow_redirects": False}


def outputs(response):
    if response.status_code != 303:
        return response.json()["outputs"]
    # Not over yet: the same wait once more.
    trigger = HttpTrigger("supercargo", method="GET", endpoint=response.headers["Location"], extra_options=ONE_WAIT)
    raise TaskDeferred(trigger=trigger, method_name="execute_complete")


with DAG("supercargo_deferrable"):
    HttpOperator(
        task_id="count_words",
        http_conn_id="supercargo",
        deferrable=True,
        method="PUT",
        endpoint="/api/v1/tasks/key:" + WORK + "?wait=50s",
        data=json.dumps({"image": "busybox:latest", "command": ["sh", "-c", COUNT], "retries": {"max": 2}}),
        extra_options=ONE_WAIT,
        response_filter=outputs,
        retries=2,
    )
# --8<-- end
