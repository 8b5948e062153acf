"""Submits a task document, waits for its end and prints its result: python submit.py ../tasks/hello.json"""

import json
import os
import sys

from httpx import Timeout
from supercargo_client import AuthenticatedClient
from supercargo_client.api.tasks import get_task_result, submit_task
from supercargo_client.models import Problem, TaskProblem, TaskSpec

client = AuthenticatedClient(
    base_url=os.environ["SUPERCARGO_URL"],
    token=os.environ["SUPERCARGO_TOKEN"],
    follow_redirects=True,  # a wait that is not over leads to the next one
    timeout=Timeout(60),
)
with open(sys.argv[1]) as document:
    spec = TaskSpec.from_dict(json.load(document))

task = submit_task.sync(client=client, body=spec, wait="50s")
if isinstance(task, Problem | TaskProblem):
    sys.exit(f"{task.code.value}: {task.detail}")
print(json.dumps(get_task_result.sync(client=client, id=str(task.id))))
