"""The log of the container in the log of the Airflow task, while it runs."""

import json

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG

# Names the work: a retry finds the container that runs already, clearing the task begins anew.
WORK = "{{ dag.dag_id }}.{{ run_id }}.{{ task.task_id }}.{{ ti.map_index }}.{{ ti.max_tries - task.retries }}"

COUNT = "for i in 1 2 3; do echo line $i; sleep 1; done; echo '{\"lines\": 3}' > $SUPERCARGO_OUTPUT"


# --8<-- live_logs
def print_log(response):
    page = response.json()
    for line in page.get("lines", []):
        print(line)
    path = f"/api/v1/tasks/{page['id']}/poll" if "id" in page else page.get("next")
    return {"endpoint": path} if path else None


with DAG("supercargo_live_logs"):
    HttpOperator(
        task_id="count_lines",
        http_conn_id="supercargo",
        endpoint="/api/v1/tasks",
        headers={"Idempotency-Key": WORK + ".{{ ti.try_number }}"},
        data=json.dumps({"run_key": WORK, "image": "busybox:latest", "command": ["sh", "-c", COUNT]}),
        pagination_function=print_log,
        response_filter=lambda responses: responses[-1].json()["result"],
        retries=2,
    )
# --8<-- end
