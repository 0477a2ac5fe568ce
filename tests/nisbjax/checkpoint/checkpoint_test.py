"""Which checkpoint is found, what it says of itself, and what is refused."""

import json

import pytest
from small_checkpoints import MODEL, SAID, arrays, flip

from nisbjax.checkpoint.checkpoint import (
    ARRAYS,
    FACTS,
    describe,
    find,
    numbered,
    step_of,
    weight_items,
)
from nisbjax.errors import InputError
from nisbjax.store import checksums


def test_the_newest_step_is_found_by_number(tmp_path):
    for name in ("900", "1000", "1001.orbax-checkpoint-tmp", "notes"):
        (tmp_path / name / "params").mkdir(parents=True)
        (tmp_path / name / "params" / "weights").write_bytes(b"w")
        checksums.write(tmp_path / name)
    (tmp_path / "2000").mkdir()  # nothing in it
    assert find(tmp_path).name == "1000"
    assert [p.name for p in numbered(tmp_path)] == ["1000", "900"]
    assert find(tmp_path / "notes").name == "notes"
    with pytest.raises(InputError, match="notes is not named by its step"):
        step_of(find(tmp_path / "notes"))


def files_of_every_kind(folder):
    """One file for each name in each folder, where names do not hold their content."""
    kinds = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = "chunk" if len(path.name) == 32 else path.name
        kinds[path.parent.relative_to(folder), name] = path
    return list(kinds.values())


def test_a_flipped_bit_in_any_file_is_named_and_the_checkpoint_before_is_used(
    three, caplog
):
    kinds = files_of_every_kind(three / "3")
    assert {p.name for p in kinds} >= {
        "SHA256SUMS",
        "_CHECKPOINT_METADATA",
        "_METADATA",
        "_sharding",
        "manifest.ocdbt",
        "metadata",
        "commit_success.txt",
    }
    items = {p.relative_to(three / "3").parts[0] for p in kinds}
    assert items >= {*ARRAYS, *FACTS}
    for path in kinds:
        before = path.read_bytes()
        flip(path)
        caplog.clear()
        assert find(three).name == "2"
        assert f"{three / '3'} is damaged" in caplog.text
        name = str(path.relative_to(three / "3"))
        if name != "SHA256SUMS":
            assert f"({name} changed, by its SHA256SUMS)" in caplog.text
        with pytest.raises(
            InputError, match=r"checkpoints/3 is damaged \(.*; name another, or the run"
        ):
            find(three / "3")
        path.write_bytes(before)
    assert find(three).name == find(three / "3").name == "3"


def test_prediction_looks_at_what_it_reads_alone(three):
    flip(next((three / "3" / "optimizer").rglob("d/*")))
    assert find(three).name == "2"
    assert find(three, weight_items("ema")).name == "3"
    flip(three / "3" / "ema" / "_METADATA")
    assert find(three, weight_items("ema")).name == "2"
    assert find(three, weight_items("raw")).name == "3"
    with pytest.raises(
        InputError, match="predict.weights is 'mean'; wanted ema or raw"
    ):
        weight_items("mean")


def test_nothing_but_damaged_checkpoints_is_no_new_beginning(three, checkpoints):
    for step in (1, 2, 3):
        flip(three / str(step) / "params" / "_METADATA")
    with pytest.raises(
        InputError, match=r"every checkpoint of .* is unsealed or damaged \(3, 2, 1\)"
    ):
        find(three)
    for _ in range(2):  # nor is it one at the next start, when they lie aside
        with pytest.raises(
            InputError,
            match=r"can be used \(set aside: 1.damaged, 2.damaged, 3.damaged\); put back",
        ):
            checkpoints().newest_sound()


def test_an_item_that_cannot_be_read_is_named(three):
    (three / "3" / "model" / "metadata").write_text("{")
    with pytest.raises(
        InputError,
        match="3/model/metadata is not valid JSON .*; checkpoint .* is damaged, or of ano",
    ):
        describe(three / "3")


def test_no_checkpoint_is_refused(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(
            InputError, match=f"no checkpoint at {path}; wanted a run's"
        ):
            find(path)


def test_facts_are_readable_without_us(checkpoints, tmp_path):
    kept = checkpoints()
    kept.save(3, arrays(), SAID)
    kept.wait()
    folder = tmp_path / "run" / "checkpoints" / "3"
    files = {p.parent.name: p for p in folder.glob("*/metadata") if p.is_file()}
    assert json.loads(files["config"].read_text()) == {"seed": 42}
    assert json.loads(files["model"].read_text()) == MODEL
