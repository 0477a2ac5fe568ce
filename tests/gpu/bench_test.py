"""Of `bench.py` what needs no GPU: its list of parts, its tables, its timelines, its processes."""

import asyncio
import gzip
import importlib
import json

import pytest
import small_operations as fake
from gpu import bench, timeline

from nisbjax.models.kernels import table
from nisbjax.models.kernels.choice import Candidate, Recorder


def test_parts_are_what_is_asked_for():
    whats = [task.row["what"] for task in bench.tasks_of(bench.parse([]))]
    assert whats[0] == "step" and whats[-1] == "tests of tests/gpu"
    some = bench.tasks_of(bench.parse(["--only", "forward", "--kernels", "pallas"]))
    assert [task.row["size"] for task in some] == ["L", "S"]
    assert "--kernels=pallas" in some[0].command and "--batch=4" in some[0].command
    with pytest.raises(SystemExit, match="--only has training; wanted tests, step, "):
        bench.tasks_of(bench.parse(["--only", "training,step"]))


def test_a_second_start_finds_what_the_first_compiled():
    tasks = bench.tasks_of(bench.parse(["--only", "step,again"]))
    again = [task for task in tasks if "second start" in task.row["what"]]
    assert [task.after for task in again] == [tasks[0]]  # no forward pass was asked for


def test_a_table_has_a_line_for_what_failed():
    rows = [
        {"what": "forward", "size": "S", "side": 80, "ms": 12.345, "batch": 4},
        {"what": "forward", "size": "S", "side": 128, "failed": "did not end in 3 s"},
        {"what": "step", "size": "L", "side": 128, "peak_gib": 5.7},
    ]
    lines = bench.table(rows).splitlines()
    assert lines[0].split() == [
        "what",
        "size",
        "side",
        "batch",
        "ms",
        "peak_gib",
        "note",
    ]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["step", "L", "128"],
        ["forward", "S", "128"],
        ["forward", "S", "80"],
    ]
    assert lines[2].endswith("did not end in 3 s") and lines[3].endswith(" 12.3")


def test_operations_stand_beside_their_floors():
    line = {"operation": "mix", "xla_ms": 3.0, "floor_ms": 2.0, "times_floor": 1.5}
    row = {"what": "operations", "program": "step", "size": "L", "copy_tb_per_s": 3.0}
    said = bench.table([row | {"uses": 78, "operations": [line]}])
    assert "1 of 78 operations of a step of L, at 3.00 TB/s" in said
    assert said.splitlines()[-1].split() == ["mix", "2", "3", "1.5"]


@pytest.fixture
def bench_operations(monkeypatch):
    monkeypatch.syspath_prepend(bench.HERE)
    module = importlib.import_module("bench_operations")
    monkeypatch.setattr(module.turns, "wait", lambda: None)
    monkeypatch.setattr(module, "copy_rate", lambda repeat: 1e9)
    return module


def measured(module, operation, *uses, **limits):
    recorder = Recorder()
    recorder.uses, recorder.operations = list(uses), {"scaled": operation}
    wanted = {"uses": 0, "candidates": 0, "seconds": 60.0} | limits
    return module.rows(recorder, **wanted, repeat=1)


def test_every_use_is_told_and_the_fastest_make_a_table(bench_operations):
    """x of 4 * 6 * 8 float32, 8 weights and a result like x: 1,568 bytes at 1 GB/s."""
    operation = fake.Scaled(fake.slow, pallas=fake.right, wrong=lambda x, *_: x)
    large, small = fake.use(4, 6, 8), fake.use(2, 3)
    row = measured(bench_operations, operation, small, large)
    first, second = row["operations"]
    assert (
        first["operation"] == "scaled" and first["arrays"] == "float32 4x6x8 8 power=2"
    )
    assert first["floor_ms"] == pytest.approx(1.568e-3)
    assert first["pallas_ms"] < first["xla_ms"] and first["fastest"] == "pallas"
    assert float(first["pallas_error"]) < 1e-6 and first["note"] == "1 of 3 left out"
    assert second["arrays"].startswith("float32 2x3 ") and row["uses"] == 2
    written = bench.kernels_table("A GPU", [row, {"what": "step"}])
    assert written["device"] == "A GPU"
    assert table.of_these(written, {"device": "A GPU"}) == {
        large: Candidate("pallas"),
        small: Candidate("pallas"),
    }


def test_what_was_not_raced_with_all_candidates_is_in_no_table(bench_operations):
    operation = fake.Scaled(fake.slow, pallas=fake.right)
    uses = fake.use(4, 6, 8), fake.use(2, 3)
    row = measured(bench_operations, operation, *uses, candidates=1, uses=1)
    (line,) = row["operations"]
    assert line["fastest"] == "xla" and "pallas_ms" not in line
    assert row["chosen"] == {} and row["uses"] == 2
    row = measured(bench_operations, operation, *uses, seconds=0.0)
    assert [line["note"] for line in row["operations"]] == ["was not measured"] * 2
    assert row["chosen"] == {}


def traced(folder):
    """Two steps of two kernels on a stream, and what is none: a thread of the host."""
    names = [
        ("process_name", 1, 0, "/device:GPU:0"),
        ("process_name", 2, 0, "/host:CPU"),
    ]
    names += [("thread_name", 1, 7, "Stream #7"), ("thread_name", 2, 7, "Stream")]
    events = [
        {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}
        for kind, pid, tid, name in names
    ]
    for pid, us, source in [
        (1, 300.0, "jit(step)/_gathered/add"),
        (1, 100.0, "jit(step)/_mlp/dot_general"),
        (2, 900.0, "jit(step)/_mlp/dot_general"),
    ]:
        args = {"hlo_op": source[-3:], "tf_op": source}
        event = {"ph": "X", "name": "fusion", "pid": pid, "tid": 7, "dur": us}
        events += [event | {"args": args}] * 2
    folder.mkdir()
    with gzip.open(folder / "a.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": events}, file)


def test_a_timeline_counts_kernels_by_what_they_are_part_of(tmp_path):
    traced(tmp_path / "plugins")
    ran = timeline.kernels(timeline.load(tmp_path))
    found = timeline.summary(ran, steps=2)
    assert found["device_ms"] == 0.4 and found["kernels"] == 2
    assert found["parts"] == {"depthwise": 0.3, "pointwise": 0.1}
    assert found["longest"][0]["ms"] == 0.3 and found["longest"][0]["times"] == 1
    assert timeline.load(tmp_path / "plugins" / "none") == []
    row = {"what": "timeline step", "size": "L", "kernels": "xla", "timeline": found}
    assert "timeline step, L, xla: 0.4 ms in 2 kernels" in bench.table([row])


PROGRAMS = {
    "one": "print('{\"ready\": true}', flush=True); input(); print('{\"ms\": 1}')",
    "choosing": "print('{\"choose\": true}', flush=True); input(); print('{}', flush=True); "
    "print('{\"ready\": true}', flush=True); input(); print('{\"ms\": 2}')",
    "mute": "import time; time.sleep(60)",
    "broken": "import sys; sys.exit('no such thing')",
}


def test_every_process_has_rows_or_a_reason(tmp_path):
    tasks = [bench.Task({"what": w}, ["-c", code]) for w, code in PROGRAMS.items()]
    found = bench.Bench(budget=3, jobs=4, folder=tmp_path)
    asyncio.run(found.run(tasks))
    said = {row["what"]: row.get("failed", row.get("ms")) for row in found.rows}
    assert said["one"] == 1 and said["choosing"] == 2 and len(said) == len(found.rows)
    assert said["broken"] == "failed: no such thing"
    assert said["mute"].startswith("did not end in ")
    assert not found._running


def test_what_has_no_time_left_is_not_begun(tmp_path):
    found = bench.Bench(budget=0.0, jobs=1, folder=tmp_path)
    asyncio.run(found.run([bench.Task({"what": "late"}, ["-c", ""])]))
    assert found.rows == [{"what": "late", "failed": "not begun: the budget is spent"}]


def test_standing_still_does_not_count_as_compiling(tmp_path):
    """From 10 to 20, of which 12 to 13 and 19 to 20 (to 25) were turns of others: 8 s."""
    found = bench.Bench(budget=1.0, jobs=1, folder=tmp_path)
    found._turns = [(12.0, 13.0), (19.0, 25.0), (30.0, 31.0)]
    assert found._moving(10.0, 20.0) == 8.0


def test_what_each_part_said_is_kept_by_its_name(tmp_path):
    said = tmp_path / "said"
    said.write_text("xla takes 2 ms")
    task = bench.Task({"what": "timeline step"}, [])
    bench.keep_logs([(task, said)], tmp_path / "logs")
    assert (tmp_path / "logs" / "00_timeline_step.txt").read_text() == "xla takes 2 ms"
    tasks = bench.tasks_of(bench.parse(["--only", "step", "--logs", "logs"]))
    assert all("--verbose" in task.command for task in tasks)
