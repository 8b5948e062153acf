"""One request that waits: an Airflow worker holds it until the container is over."""

# --8<-- sync_wait
import json

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG

# Names the work: a retry finds the container that runs already, clearing the task begins anew.
WORK = "{{ dag.dag_id }}.{{ run_id }}.{{ task.task_id }}.{{ ti.map_index }}.{{ ti.max_tries - task.retries }}"

COUNT = "printf '{\"words\": %d}' $(echo to be or not to be | wc -w) > $SUPERCARGO_OUTPUT"

with DAG("supercargo_sync_wait"):
    HttpOperator(
        task_id="count_words",
        http_conn_id="supercargo",
        endpoint="/api/v1/tasks?wait=50s",
        headers={"Idempotency-Key": WORK + ".{{ ti.try_number }}"},
        data=json.dumps({"run_key": WORK, "image": "busybox:latest", "command": ["sh", "-c", COUNT]}),
        response_filter=lambda response: response.json()["outputs"],
        retries=2,
    )
# --8<-- end
