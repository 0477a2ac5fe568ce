"""The checkpoints of a run in a folder of the test."""

import pytest
from small_checkpoints import SAID, arrays

from nisbjax.checkpoint.series import Checkpoints


@pytest.fixture
def checkpoints(tmp_path):
    opened = []

    def open_(**options):
        opened.append(Checkpoints(tmp_path / "run" / "checkpoints", **options))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


@pytest.fixture
def three(checkpoints, tmp_path):
    """Sound checkpoints of steps 1, 2 and 3."""
    kept = checkpoints(best=0, every=1)
    for step in (1, 2, 3):
        kept.save(step, arrays(step), SAID | {"step": {"step": step}})
    kept.close()
    return tmp_path / "run" / "checkpoints"
