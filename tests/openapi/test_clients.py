"""Clients made from the document by the usual generators, against the service: the programs of the README."""

import compileall
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.service import ROOT

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
NODE = HERE / "node_modules"
EXAMPLES = ROOT / "examples/clients"
DOCUMENTS = ["openapi.json", "openapi-3.0.json"]

SUCCEEDS = {"image": "none", "env": {"FAKE_OUTPUT": '{"words": 7}', "FAKE_RUN_FOR": "1500ms"}}
FAILS = {"image": "none", "name": "count", "env": {"FAKE_EXIT": "3"}}
IS_WRONG = {"image": "none", "resources": {"memory": "512m"}}


def run(command, folder, **env):
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(it) for it in command], cwd=folder, env=os.environ | {"PATH": path} | env, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def succeed(command, folder, **env):
    status, out, err = run(command, folder, **env)
    assert status == 0, f"{command[0]} ended with {status}:\n{out}\n{err}"
    return out


def check(program, service, folder, **env):
    """The program of the README with a task that succeeds, one that fails and one that is refused."""
    env |= {"SUPERCARGO_URL": service.url, "SUPERCARGO_TOKEN": service.token}
    answers = []
    for document in (SUCCEEDS, FAILS, IS_WRONG):
        path = folder / "task.json"
        path.write_text(json.dumps(document))
        status, out, err = run([*program, path], folder, **env)
        answers.append((status, out.strip(), err.strip()))
    (succeeded, failed, wrong) = answers
    assert succeeded[0] == 0 and json.loads(succeeded[1]) == {"words": 7}, succeeded
    assert failed == (1, "", 'task_failed: task "count" failed (exit_nonzero): exited with code 3'), failed
    refused = 'spec_invalid: resources/memory: "512m" is in thousandths of a byte: did you mean "512Mi"?'
    assert wrong == (1, "", refused), wrong


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_python_client(service, tmp_path, document):
    client = tmp_path / "supercargo_client"
    out = succeed(
        ["openapi-python-client", "generate", "--url", f"{service.url}/{document}", "--fail-on-warning",
         "--meta", "none", "--output-path", client],
        tmp_path,
    )
    assert "warning" not in out.lower(), out
    assert compileall.compile_dir(client, quiet=1)
    check([sys.executable, EXAMPLES / "submit.py"], service, tmp_path, PYTHONPATH=str(tmp_path))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_typescript_client(service, tmp_path, document):
    (tmp_path / "node_modules").symlink_to(NODE)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "submit.ts").write_text((EXAMPLES / "submit.ts").read_text())
    tool = NODE / ".bin"
    succeed([tool / "openapi-typescript", f"{service.url}/{document}", "--output", "supercargo.ts"], tmp_path)
    succeed(
        [tool / "tsc", "--strict", "--noUncheckedIndexedAccess", "--module", "nodenext", "--target", "es2022",
         "--types", "node", "--outDir", "out", "submit.ts"],
        tmp_path,
    )
    check(["node", tmp_path / "out/submit.js"], service, tmp_path)


def test_the_readme_shows_the_programs_as_they_are():
    readme = (ROOT / "README.md").read_text()
    for name in ("submit.py", "submit.ts"):
        assert (EXAMPLES / name).read_text() in readme, f"copy examples/clients/{name} into README.md"
