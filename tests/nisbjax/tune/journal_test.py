"""Journals: a line that was cut short goes, what is no journal stays as it is."""

import errno
import json
import os
import socket
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend

from nisbjax.errors import InputError
from nisbjax.tune import journal_lock, storage

MADE = {"prediction": "a"}


def open_study(path):
    return storage.open_study(str(path), "tuning", MADE)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tuning.journal"
    open_study(path).enqueue_trial({"threshold": 0.4})
    return path


def test_a_torn_last_line_is_removed(path):
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":5,"worker_id":"a-b","tri')
    opened = open_study(path)
    assert path.read_bytes() == whole
    opened.enqueue_trial({"threshold": 0.5})
    assert len(open_study(path).trials) == 2


@pytest.mark.parametrize("kept", [0, 1, 20])
def test_a_creation_that_was_cut_short(tmp_path, kept):
    """Nothing, or the study without what it scores: it has no trial, and is ours."""
    path = tmp_path / "tuning.journal"
    open_study(path)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first[:kept] if kept < 20 else first + second[:kept])
    assert open_study(path).user_attrs == {"made_from": MADE}
    assert open_study(path).trials == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"step 1: loss 0.3\nstep 2: loss 0.2", 1),
        (b"step 1: loss 0.3", 1),
        (b'{"op_code":0,"worker_id":"a"}\n5\n', 2),
        (b"null\n", 1),
        (b"\xff\xfe\x00\n", 1),
        (b"[" * 100_000 + b"\n", 1),
    ],
)
def test_what_is_no_journal_is_left_as_it_is(tmp_path, content, line):
    path = tmp_path / "train.log"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=rf"cannot be read \(line {line} is no entry of a journal"
    ):
        open_study(path)
    assert path.read_bytes() == content


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(["study_id", "study_name", "directions", "trial_id", "state"])


@given(
    op=st.integers(-1, 12),
    fields=st.dictionaries(FIELDS | st.text(), JSON),
    fresh=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_entries_of_any_content_are_read_or_refused(
    tmp_path_factory, op, fields, fresh
):
    path = tmp_path_factory.mktemp("journal") / "tuning.journal"
    if not fresh:
        open_study(path)
    with open(path, "a") as journal:
        entry = {**fields, "op_code": op, "worker_id": "x"}
        journal.write(json.dumps(entry) + "\n")
    try:
        open_study(path)
    except InputError as error:
        assert "\n" not in str(error)


def test_a_full_disk_is_said_and_leaves_no_half_line(path, monkeypatch):
    opened = open_study(path)
    whole = path.read_bytes()

    def full(self, logs):
        with open(path, "ab") as journal:
            journal.write(b'{"op_code":4,')
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    with pytest.raises(InputError, match="cannot be written or read .No space left"):
        opened.enqueue_trial({"threshold": 0.5})
    assert path.read_bytes() == whole


@pytest.fixture
def gone():
    with subprocess.Popen(["true"]) as process:
        pass
    return f"{socket.gethostname()}.{process.pid}.0"


def test_the_lock_of_a_dead_process_is_taken_over_at_once(path, gone):
    lock = path.with_name("tuning.journal.lock")
    for owner in (gone, f"{socket.gethostname()}.{os.getpid()}.1"):  # an id used again
        lock.symlink_to(owner)
        started = time.monotonic()
        open_study(path).enqueue_trial({"threshold": 0.5})
        assert time.monotonic() - started < 5
        assert not lock.is_symlink()


@pytest.mark.parametrize("owner", ["elsewhere.1.1", "tuning.journal"])
def test_locks_of_others_are_waited_for(path, owner, monkeypatch):
    lock = path.with_name("tuning.journal.lock")
    lock.symlink_to(owner)
    opened = open_study(path)
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            lock.unlink()

    monkeypatch.setattr(journal_lock.time, "sleep", wait)
    opened.enqueue_trial({"threshold": 0.5})
    assert len(waits) == 3


def test_a_lock_that_nobody_renews_is_nobodys(path, monkeypatch):
    monkeypatch.setattr(journal_lock, "GRACE_SECONDS", 0.2)
    path.with_name("tuning.journal.lock").symlink_to("elsewhere.1.1")
    open_study(path).enqueue_trial({"threshold": 0.5})
    assert len(open_study(path).trials) == 2


def test_a_lock_that_is_let_go_between_two_looks(path, monkeypatch):
    """It is there when one's own is to be made, and gone when its owner is read."""
    lock = path.with_name("tuning.journal.lock")
    opened = open_study(path)
    lock.symlink_to("elsewhere.1.1")
    reads = []

    def let_go(place):
        monkeypatch.undo()  # for this once
        reads.append(place)
        os.unlink(place)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(place))

    monkeypatch.setattr(journal_lock.os, "readlink", let_go)
    opened.enqueue_trial({"threshold": 0.5})
    assert reads == [lock]
    assert not lock.is_symlink()
    assert len(opened.trials) == 2


def test_a_file_in_the_place_of_a_lock_is_refused_and_left(path):
    lock = path.with_name("tuning.journal.lock")
    opened = open_study(path)
    lock.write_text("mine")
    with pytest.raises(InputError, match=r"tuning.journal.lock .* move it away"):
        opened.enqueue_trial({"threshold": 0.5})
    assert lock.read_text() == "mine"


def test_a_lock_that_another_took_over_stays_its(path):
    """Whoever paused for longer than the grace lets nothing go when it wakes."""
    held = journal_lock.JournalLock(path)
    held.acquire()
    link = path.with_name("tuning.journal.lock")
    link.unlink()
    link.symlink_to("elsewhere.1.1")
    held.release()
    assert os.readlink(link) == "elsewhere.1.1"
    link.unlink()
    held.release()  # none there
    held.acquire()
    held.release()
    assert not link.is_symlink()
