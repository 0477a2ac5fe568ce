"""Which checkpoints of a run are kept, and what its next start finds."""

import shutil

import pytest
from small_checkpoints import SAID, arrays, equal, flip, small

from nisbjax.checkpoint.checkpoint import (
    find,
)
from nisbjax.checkpoint.restore import restore
from nisbjax.errors import InputError
from nisbjax.store import checksums


def test_kept_are_the_newest_the_best_and_every_so_many(checkpoints):
    kept = checkpoints(best=2, every=5)
    assert kept.newest_sound() is None and kept.steps == []
    losses = {1: 0.5, 2: 0.9, 3: 0.4, 4: 0.7, 5: 0.8, 6: 0.3, 7: None, 8: 0.6, 9: None}
    seen = []
    for step, loss in losses.items():
        kept.save(step, small(), SAID, loss)
        kept.wait()
        seen.append(kept.steps)
    # Best two of those so far, multiples of 5, and the newest.
    assert seen == [
        [1],
        [1, 2],
        [1, 3],
        [1, 3, 4],
        [1, 3, 5],
        [3, 5, 6],
        [3, 5, 6, 7],
        [3, 5, 6, 8],
        [3, 5, 6, 9],
    ]
    assert kept.newest_sound() == 9


def test_losses_are_known_again_after_a_restart(checkpoints):
    """Orbax's own policy forgets them, and deletes the best with the next save."""
    losses = {1: 0.5, 2: 0.2, 3: 0.4, 4: 0.9, 5: float("nan"), 6: 0.1}
    for step, loss in losses.items():
        kept = checkpoints(best=2, every=0)
        kept.save(step, small(), SAID, loss)
        kept.close()
    # Best of 0.5 0.2 0.4 0.9 0.1; a loss that is no number is never among them.
    assert checkpoints(best=2, every=0).steps == [2, 6]


def test_nothing_but_the_newest(checkpoints):
    kept = checkpoints(best=0, every=0)
    for step in (1, 2, 3):
        kept.save(step, small(), SAID, 0.1 * step)
    kept.wait()
    assert kept.steps == [3]


def test_a_run_sets_damaged_checkpoints_aside_and_writes_them_again(
    three, checkpoints, caplog
):
    flip(three / "3" / "ema" / "_METADATA")
    (three / "2" / "SHA256SUMS").unlink()
    shutil.rmtree(three / "2" / "optimizer")
    kept = checkpoints(best=0, every=1)
    assert kept.newest_sound() == 1
    assert "checkpoints/3 is damaged (ema/_METADATA changed" in caplog.text
    assert "it is now 3.damaged, and the one before it is used" in caplog.text
    assert "checkpoints/2 was not sealed and lacks optimizer; it is now 2.unf" in (
        caplog.text
    )
    kept.save(2, arrays(7), SAID)
    kept.save(3, arrays(8), SAID)
    kept.wait()
    assert kept.steps == [1, 2, 3] and kept.newest_sound() == 3
    equal(restore(three / "3", arrays()), arrays(8))
    flip(three / "3" / "step" / "metadata")
    assert checkpoints().newest_sound() == 2
    names = sorted(p.name for p in three.iterdir())
    assert names == ["1", "2", "2.unfinished", "3.damaged", "3.damaged.2"]


def test_a_kill_between_commit_and_seal_loses_nothing(
    checkpoints, tmp_path, monkeypatch, caplog
):
    """The one before stays until the new one is sealed, and the new one is sealed then."""
    caplog.set_level("INFO", logger="absl")
    kept = checkpoints(best=0, every=0)
    kept.save(3, arrays(1.0), SAID)
    kept.wait()
    folder = tmp_path / "run" / "checkpoints"

    class Killed(BaseException):
        pass

    def killed(folder):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checksums, "write", killed)
        kept.save(4, arrays(2.0), SAID | {"step": {"step": 4}})
        with pytest.raises(Killed):
            kept.wait()
    assert sorted(p.name for p in folder.iterdir()) == ["3", "4"]
    assert checksums.finished(folder / "3") and not checksums.finished(folder / "4")
    # Nobody believes it unread.
    assert find(folder).name == "3"
    with pytest.raises(
        InputError,
        match=r"checkpoints/4 was not sealed \(no SHA256SUMS; --mode=train on its run ch",
    ):
        find(folder / "4")
    again = checkpoints(best=0, every=0)
    assert again.newest_sound() == 4
    assert "checkpoints/4 was not sealed (no SHA256SUMS) and reads whole; sealed" in (
        caplog.text
    )
    equal(restore(find(folder), arrays()), arrays(2.0))
    again.save(5, arrays(3.0), SAID | {"step": {"step": 5}})
    again.wait()
    assert [p.name for p in folder.iterdir()] == ["5"]


def test_a_run_that_was_killed_in_its_first_checkpoint_begins_again(
    checkpoints, tmp_path, caplog
):
    folder = tmp_path / "run" / "checkpoints"
    half = folder / "3.orbax-checkpoint-tmp"
    (half / "params").mkdir(parents=True)
    kept = checkpoints()
    assert kept.newest_sound() is None
    assert "was never completely written; training starts at step 0" in caplog.text
    kept.save(3, arrays(), SAID)
    kept.wait()
    assert [p.name for p in folder.iterdir()] == ["3"]  # the half is swept


def test_a_deletion_that_was_killed_is_finished_at_the_next_start(three, checkpoints):
    (three / "1").rename(three / "1.removed")
    assert checkpoints().newest_sound() == 3
    assert sorted(p.name for p in three.iterdir()) == ["2", "3"]


def test_nothing_is_made_before_the_first_save(checkpoints, tmp_path):
    kept = checkpoints()
    assert kept.newest_sound() is None
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_what_orbax_did_not_commit_is_not_sealed(checkpoints, monkeypatch):
    """Ctrl-C in the middle: the main thread is told, the thread that seals is not."""
    kept = checkpoints()
    monkeypatch.setattr(kept._opened(), "wait_until_finished", lambda: None)
    monkeypatch.setattr(kept._opened(), "save", lambda *_, **__: True)
    kept.save(3, small(), SAID)
    kept._wait_for_seal()
    assert kept.steps == []
    assert kept.newest_sound() is None


def test_a_seal_without_a_line_is_none(checkpoints, three):
    """Of an older program, which sealed what was not there."""
    for path in (three / "3").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (three / "3" / "SHA256SUMS").write_bytes(b"")
    assert checkpoints().newest_sound() == 2
    assert (three / "3.unfinished").is_dir()
