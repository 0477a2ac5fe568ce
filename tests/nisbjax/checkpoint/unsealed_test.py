"""A checkpoint without its seal is read whole before it is believed."""

import json
import re
import shutil

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest
from small_checkpoints import unseal

from nisbjax.checkpoint.checkpoint import (
    find,
)
from nisbjax.errors import InputError


def test_the_only_checkpoint_is_sealed_or_its_fault_is_named(three, checkpoints):
    for step in (1, 2, 3):
        unseal(three / str(step))
    with pytest.raises(
        InputError,
        match=r"every checkpoint of .* is unsealed or damaged \(3, 2, 1\); --mode=train",
    ):
        find(three)
    assert checkpoints().newest_sound() == 3
    assert find(three).name == "3"


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def chunks(folder):
    """The file that holds an item's values: the largest."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


def replace_fact(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def save_again(folder, tree):
    with ocp.StandardCheckpointer() as files:
        files.save(folder, tree, force=True)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda f: shutil.rmtree(f / "loader"), "was not sealed and lacks loader"),
        (
            lambda f: (f / "_CHECKPOINT_METADATA").unlink(),
            "was not sealed and lacks _CHECKPOINT_METADATA",
        ),
        (
            lambda f: (f / "step" / "metadata").write_text("{"),
            "was not sealed, and its .*step/metadata is not valid JSON .*; it is now",
        ),
        (
            lambda f: replace_fact(f / "step" / "metadata", step=7),
            "was not sealed and says step 7",
        ),
        (
            lambda f: chunks(f / "ema").unlink(),
            "was not sealed and its ema cannot be read",
        ),
        (
            lambda f: cut(f / "optimizer" / "_METADATA"),
            "was not sealed and its optimizer cannot be read",
        ),
        (
            lambda f: cut(chunks(f / "params")),
            "was not sealed and its params cannot be read",
        ),
        (
            lambda f: save_again(f / "ema", {"stem": {"bias": jnp.full(3, jnp.nan)}}),
            r"was not sealed and ema\['stem'\]\['bias'\] is not finite",
        ),
        (
            lambda f: save_again(f / "ema", {"stem": {"bias": jnp.ones(3)}}),
            "was not sealed and its ema is of other weights than its params",
        ),
    ],
)
def test_an_unsealed_checkpoint_that_is_not_whole_is_set_aside_with_its_reason(
    three, checkpoints, caplog, harm, reason
):
    unseal(three / "3")
    harm(three / "3")
    assert checkpoints().newest_sound() == 2
    assert re.search(f"checkpoints/3 {reason}", caplog.text)
    assert "it is now 3.unfinished, and the one before it is used" in caplog.text
    # Without the others it is no new beginning, now or at the next start.
    for step in ("1", "2"):
        shutil.rmtree(three / step)
    for _ in range(2):
        with pytest.raises(
            InputError,
            match=r"no checkpoint in .* can be used \(set aside: 3.unfinished\); put b",
        ):
            checkpoints().newest_sound()
