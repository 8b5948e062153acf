"""Requests that are right, wrong and odd, made from the document, against the service."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent


def call(service, method, path, body=None):
    request = urllib.request.Request(
        f"{service.url}/api/v1{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def simulated(**env):
    return {"image": "none", "target": "simulated", "env": env}


def test_every_operation_keeps_to_the_document(service, tmp_path):
    tasks = [
        call(service, "POST", "/tasks", document)["id"]
        for document in (
            simulated(FAKE_OUTPUT='{"words": 7}', FAKE_LOG="a line"),
            simulated(FAKE_EXIT="3"),
            simulated(FAKE_RUN_FOR="1h"),
            simulated(FAKE_RUN_FOR="1h"),
        )
    ]
    call(service, "POST", f"/tasks/{tasks[-1]}/cancel")
    config = tmp_path / "schemathesis.toml"
    text = (HERE / "schemathesis.toml").read_text()
    assert '["@tasks@"]' in text
    config.write_text(text.replace('["@tasks@"]', json.dumps(tasks)))
    (admin,) = call(service, "GET", "/tokens")["items"]
    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "--config-file", config,
            "run", f"{service.url}/openapi.json",
            *os.environ.get("SCHEMATHESIS_ARGS", "").split(),
        ],
        cwd=HERE,
        env=os.environ | {
            "PYTHONPATH": str(HERE),
            "SUPERCARGO_ADMIN_TOKEN_ID": admin["id"],
            "SUPERCARGO_TOKEN": service.token,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    (service.folder / "schemathesis.log").write_text(run.stdout)
    print(run.stdout)
    assert run.returncode == 0, "see above"
