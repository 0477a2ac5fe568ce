"""Curves of a run that was stopped and went on."""

import json
import warnings

import pytest

from nisbjax.errors import InputError
from nisbjax.train.metric_writer import EventFile, MetricWriter, read_history


@pytest.fixture
def start(tmp_path):
    def start_(first):
        logs = tmp_path / "logs"
        return MetricWriter(logs, logs / "history.jsonl", first)

    return start_


def test_one_line_for_each_logged_step(start, tmp_path):
    history = tmp_path / "logs" / "history.jsonl"
    assert read_history(history) == []
    writer = start(0)
    writer.write(1, {"train/loss": 0.5})
    writer.write(1, {"val/loss": float("nan")})
    writer.close()
    first, second = read_history(history)
    assert first == {"step": 1, "train/loss": 0.5}
    assert second["val/loss"] != second["val/loss"]


def test_a_resumed_run_drops_what_lies_behind_its_start(start, tmp_path):
    writer = start(0)
    for step in range(1, 6):
        writer.write(step, {"train/loss": 1.0 * step})
    writer.close()
    history = tmp_path / "logs" / "history.jsonl"
    with open(history, "a") as file:
        file.write('{"step": 6, "tra')  # torn by a kill
    assert [line["step"] for line in read_history(history)] == [1, 2, 3, 4, 5]
    writer = start(3)  # the checkpoint of step 3
    for step in (4, 5):
        writer.write(step, {"train/loss": 10.0 * step})
    writer.close()
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert [(x["step"], x["train/loss"]) for x in lines] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 40),
        (5, 50),
    ]
    # TensorBoard's own reader drops the overlap, and nothing that is not written again.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing import event_accumulator
    events = event_accumulator.EventAccumulator(str(tmp_path / "logs"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events.Reload()
    shown = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert shown == [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50)]


def test_lines_of_something_else_are_left_out(start, tmp_path):
    history = tmp_path / "logs" / "history.jsonl"
    history.parent.mkdir()
    history.write_bytes(
        b'{"step": 1, "train/loss": 2.0}\n5\nnull\n[1]\n{"step": "2"}\n{"train/loss": 1}\n'
        b'\xff\n{"step": true}\n{"step": 2, "train/loss": 1.0}\n{"step": 3, "tr'
    )
    wanted = [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": 1.0}]
    assert read_history(history) == wanted
    start(2).close()
    assert [json.loads(line) for line in history.read_text().splitlines()] == wanted


@pytest.mark.parametrize("method", ["write", "flush"])
def test_events_that_cannot_be_written_are_one_line_once(tmp_path, monkeypatch, method):
    events = EventFile(tmp_path / "logs")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(events._records, method, full)
    with pytest.raises(
        InputError,
        match=r"logs could not be written \(No space left on device\); free space or giv",
    ):
        events.add_scalar("loss", 1.0, 1)
        events.flush()
    events.close()  # says it no second time


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "logs").write_text("")
    with pytest.raises(InputError, match=r"logs could not be written \(File exists\)"):
        EventFile(tmp_path / "logs")
