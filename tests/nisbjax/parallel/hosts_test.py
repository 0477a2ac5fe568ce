"""How processes find one another; tests/slow starts real ones."""

import jax
import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.parallel import hosts


def task(local, tasks="1", node="0", **more):
    return {
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_NODEID": node,
        "SLURM_LOCALID": str(local),
        **more,
    }


@pytest.mark.parametrize(
    "variables, wanted",
    [
        # One task a node takes all of its GPUs.
        (task(0, CUDA_VISIBLE_DEVICES="0,1,2,3", SLURM_GPUS_ON_NODE="4"), []),
        (task(0, "1(x2)", "1", SLURM_GPUS_ON_NODE="4"), []),
        # Four tasks that all see four take one each; two of them two each.
        (task(2, "4", CUDA_VISIBLE_DEVICES="0,1,2,3", SLURM_GPUS_ON_NODE="4"), [2]),
        (task(1, "2", CUDA_VISIBLE_DEVICES="4,5,6,7", SLURM_GPUS_ON_NODE="4"), [2, 3]),
        # SLURM shows every task only its own.
        (task(1, "2", CUDA_VISIBLE_DEVICES="0", SLURM_GPUS_ON_NODE="2"), []),
        # Four tasks on each of three nodes, two on the last; this is on the last.
        (task(1, "4(x3),2", "3", SLURM_GPUS_ON_NODE="2"), [1]),
        # No GPU at all.
        (task(1, "2"), []),
    ],
)
def test_the_gpus_of_a_task(variables, wanted):
    assert hosts.own_devices(variables) == wanted


def test_tasks_that_cannot_share_are_refused():
    with pytest.raises(InputError, match="3 tasks of this node share 4 GPUs; wanted"):
        hosts.own_devices(task(0, "3", SLURM_GPUS_ON_NODE="4"))


@pytest.fixture
def started(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **how: calls.append(how))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(hosts.signals, "end_at_once", lambda: None)
    for name in ("SLURM_NTASKS", "SLURM_STEP_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_one_process_joins_nobody(started, monkeypatch):
    hosts.join()
    monkeypatch.setenv("SLURM_NTASKS", "1")
    hosts.join()
    assert started == []


def test_slurms_variables_are_enough(started, monkeypatch):
    variables = task(1, "2", **SRUN)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_GPUS_ON_NODE", raising=False)
    hosts.join()
    # An empty list: JAX itself would take one GPU, None: that of the task's number.
    assert started == [{"local_device_ids": [], "shutdown_timeout_seconds": 30}]


SRUN = {
    "SLURM_NTASKS": "2",
    "SLURM_STEP_NODELIST": "node[01-02]",
    "SLURM_JOB_ID": "77",
    "SLURM_PROCID": "1",
}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SLURM_NTASKS", "two", "SLURM_NTASKS is 'two'; wanted SLURM's variables"),
        ("SLURM_NTASKS", "-1", "SLURM_NTASKS is '-1'"),
        ("SLURM_PROCID", "", "SLURM_PROCID is ''"),
        ("SLURM_PROCID", None, "SLURM_PROCID is ''"),
        ("SLURM_PROCID", "2", "SLURM_PROCID is 2 of SLURM_NTASKS 2"),
        ("SLURM_JOB_ID", None, "SLURM_JOB_ID is ''"),
        ("SLURM_LOCALID", "a", "SLURM_LOCALID is 'a'"),
        ("SLURM_NODEID", None, "SLURM_NODEID is ''"),
        ("SLURM_NODEID", "1", "SLURM_STEP_TASKS_PER_NODE is '2' on node 1"),
        ("SLURM_STEP_TASKS_PER_NODE", "2(x", r"TASKS_PER_NODE is '2\(x' on node 0"),
        ("SLURM_STEP_TASKS_PER_NODE", None, "TASKS_PER_NODE is '' on node 0"),
        ("SLURM_STEP_TASKS_PER_NODE", "9" * 99, "TASKS_PER_NODE is '999"),
        ("SLURM_STEP_NODELIST", "", "SLURM_STEP_NODELIST is ''"),
        ("SLURM_STEP_NODELIST", "[,", r"SLURM_STEP_NODELIST is '\[,'"),
        ("SLURM_GPUS_ON_NODE", "all", "SLURM_GPUS_ON_NODE is 'all'"),
    ],
)
def test_slurms_variables_in_part(started, monkeypatch, name, value, said):
    for each, whole in task(1, "2", **SRUN).items():
        monkeypatch.setenv(each, whole)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_GPUS_ON_NODE", raising=False)
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=said):
        hosts.join()
    assert started == []


def test_flags_say_the_same(started):
    hosts.join(hosts.Place("node1:5000", 4, 3))
    assert started[0]["coordinator_address"] == "node1:5000"
    assert (started[0]["num_processes"], started[0]["process_id"]) == (4, 3)


@pytest.mark.parametrize(
    "place, message",
    [
        (("node1", 2, 0), "--coordinator is 'node1'; wanted host:port"),
        (("node1:5000", 2, 2), "--process is 2 of --processes 2; wanted 0"),
        (("node1:5000", 0, 0), "--process is 0 of --processes 0"),
    ],
)
def test_flags_that_fit_nowhere_are_refused(started, place, message):
    with pytest.raises(InputError, match=message):
        hosts.join(hosts.Place(*place))
    assert started == []


def test_tasks_that_srun_did_not_start_are_refused(started, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(InputError, match="SLURM_NTASKS is 2 and srun did not start"):
        hosts.join()


def test_others_that_do_not_come_are_named(started, monkeypatch):
    def fails(**_):
        raise RuntimeError("DEADLINE_EXCEEDED")

    monkeypatch.setattr(jax.distributed, "initialize", fails)
    with pytest.raises(InputError, match="did not find one another .DEADLINE_EXCEED"):
        hosts.join(hosts.Place("node1:5000", 2, 1))


def test_alone_every_question_is_answered_at_once():
    assert hosts.first() and not hosts.several()
    with jax.transfer_guard("disallow"):
        answer = hosts.any_process([True, False])
    np.testing.assert_array_equal(answer, [True, False])
    hosts.require_equal("anything", "not raised")
    hosts.wait_for_all("here")
    # What several processes run: over all devices, whose flags are those of one process.
    sharding, reduce = hosts._reduction()
    flags = np.array([[False, False], [True, False], [False, False], [False, False]])
    np.testing.assert_array_equal(reduce(jax.device_put(flags, sharding)), answer)


def test_one_process_decides_for_itself():
    assert hosts.first_decides(lambda: "20") == "20"

    def refuse():
        raise InputError("every checkpoint is damaged")

    with pytest.raises(InputError, match="every checkpoint is damaged"):
        hosts.first_decides(refuse)
