"""DAGs in an Airflow with its own scheduler and triggerer: the examples as they are, and what can go wrong."""

import re

import pytest
from support.processes import until

def finished(airflow, dag, state):
    """Runs the DAG to its end, which has to be that state; hands back the id of the run."""
    run = airflow.trigger(dag)
    ends(airflow, dag, run, state)
    return run


def ends(airflow, dag, run, state):
    ended = airflow.finish(dag, run)
    if ended != state:
        for task, instance in airflow.tasks(dag, run).items():
            for attempt in range(1, instance["try_number"] + 1):
                print(f"--- {task}, try {attempt}", *airflow.log(dag, run, task, attempt), sep="\n")
    assert ended == state


def one_container(service, engine, dag):
    task = service.task(dag)
    assert len(task["attempts"]) == 1, task
    assert engine.started(task["id"]) == 1


@pytest.mark.parametrize(
    ("dag", "task", "result"),
    [
        ("supercargo_sync_wait", "count_words", {"words": 6}),
        ("supercargo_deferrable", "count_words", {"words": 6}),
        ("supercargo_live_logs", "count_lines", {"lines": 3}),
        ("supercargo_sensor", "result", "done"),
    ],
)
def test_an_example_ends_with_its_result_in_xcom(airflow, dag, task, result):
    run = finished(airflow, dag, "success")
    assert airflow.xcom(dag, run, task) == result
    if task == "count_lines":
        lines = [line for line in airflow.log(dag, run, task) if re.fullmatch(r"line \d", line)]
        assert lines == ["line 1", "line 2", "line 3"]


def test_the_example_of_a_skip_skips(airflow):
    run = finished(airflow, "supercargo_skip", "success")
    [task] = airflow.tasks("supercargo_skip", run).values()
    assert task["state"] == "skipped"


@pytest.mark.parametrize("dag", ["fails_waiting", "fails_deferred", "fails_with_live_log"])
def test_the_log_of_a_failed_task_has_the_cause_and_the_end_of_the_log(service, engine, airflow, dag):
    run = finished(airflow, dag, "failed")
    log = "\n".join(airflow.log(dag, run, "run"))
    cause = "424:task failed (exit_nonzero): exited with code 3; its log ends: reading orders | no such table: orders"
    assert re.search(r"AirflowException: (Unexpected error in the operation: )?" + re.escape(cause), log), log
    if dag != "fails_deferred":
        # The hook logs the body.
        assert '"log_tail":["reading orders","no such table: orders"]' in log, log
    one_container(service, engine, dag)


def test_a_log_is_there_while_the_container_runs(service, engine, airflow):
    run = airflow.trigger("live_log")
    until("the task runs", lambda: airflow.tasks("live_log", run)["run"]["state"] == "running", 60)
    until("the line is in Airflow's log", lambda: "the first line" in airflow.log("live_log", run, "run"))
    assert service.task("live_log")["state"] == "running"
    service.cancel("live_log")
    ends(airflow, "live_log", run, "failed")
    assert "AirflowException: 424:task was cancelled" in "\n".join(airflow.log("live_log", run, "run"))
    one_container(service, engine, "live_log")


def test_sensors_wait_in_every_mode(service, engine, airflow):
    run = airflow.trigger("sensors")

    def waiting():
        tasks = airflow.tasks("sensors", run)
        states = {mode: tasks[mode]["state"] for mode in ("reschedule", "deferrable")}
        poked = [line for line in airflow.log("sensors", run, "poke") if line.startswith("Poking:")]
        return states == {"reschedule": "up_for_reschedule", "deferrable": "deferred"} and len(poked) > 1

    until("each sensor waits in its own way", waiting, 90)
    service.cancel("sensors")
    ends(airflow, "sensors", run, "success")
    one_container(service, engine, "sensors")


@pytest.mark.parametrize("dag", ["retry_of_a_running_task", "retry_of_a_succeeded_task"])
def test_a_retry_attaches_again(service, engine, airflow, dag):
    run = finished(airflow, dag, "success")
    assert airflow.tasks(dag, run)["run"]["try_number"] > 1
    assert airflow.xcom(dag, run, "run") == {"last_line": "done"}
    one_container(service, engine, dag)


def test_a_retry_of_a_failed_task_is_its_next_attempt(service, engine, airflow):
    dag = "retry_of_a_failed_task"
    run = finished(airflow, dag, "success")
    assert airflow.xcom(dag, run, "run") == {"last_line": "attempt 2"}
    task = service.task(dag)
    assert [(attempt["number"], attempt["state"]) for attempt in task["attempts"]] == [(1, "failed"), (2, "succeeded")]
    assert engine.started(task["id"]) == 2


def test_a_task_that_is_cleared_runs_again(service, airflow):
    dag = "cleared"
    run = finished(airflow, dag, "success")
    airflow.clear(dag, run)
    until("the run goes on", lambda: airflow.api(f"/dags/{dag}/dagRuns/{run}")["state"] != "success")
    ends(airflow, dag, run, "success")
    assert len(service.api("/tasks", params={"name": dag})["items"]) == 2


def test_a_triggerer_that_is_killed_makes_no_second_container(service, engine, airflow):
    dags = ["triggerer_killed_on_post", "triggerer_killed_on_put"]
    runs = {dag: airflow.trigger(dag) for dag in dags}
    for dag in dags:
        [task] = until(f"{dag} is submitted", lambda: service.api("/tasks", params={"name": dag})["items"], 60)
        engine.runs(task["id"])
    airflow.programs["triggerer"].kill()
    airflow.start("triggerer")
    for dag, run in runs.items():
        ends(airflow, dag, run, "success")
        assert airflow.xcom(dag, run, "run") == {"last_line": "done"}
        one_container(service, engine, dag)
