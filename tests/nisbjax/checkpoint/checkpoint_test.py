"""What is kept, that it comes back equal, and what is refused."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nisbjax.checkpoint.checkpoint import (
    ARRAYS,
    FACTS,
    describe,
    fact,
    find,
    numbered,
    require_model,
    step_of,
    weight_items,
)
from nisbjax.checkpoint.restore import restore, weights
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.errors import InputError
from nisbjax.store import checksums

MODEL = {"size": "S", "kernel_size": 3, "in_channels": 1, "out_channels": 6}
MODEL |= {"channels": 4, "deep_supervision": False}
SAID = {
    "step": {"step": 3},
    "loader": {"seed": 42, "global_batch": 2, "accumulate": 1},
    "model": MODEL,
    "config": {"seed": 42},
}


def arrays(value=0.0, width=3):
    params = {"stem": {"weight": jnp.full((2, width), value), "bias": jnp.ones(width)}}
    ema = jax.tree.map(lambda p: p + 0.5, params)
    optimizer = {"optax": optax.adam(0.1).init(params), "scale": jnp.float32(65536)}
    return {"params": params, "ema": ema, "optimizer": optimizer}


def small():
    return {name: {"w": jnp.ones(1)} for name in ("params", "ema", "optimizer")}


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def checkpoints(tmp_path):
    opened = []

    def open_(**options):
        opened.append(Checkpoints(tmp_path / "run" / "checkpoints", **options))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


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


def test_what_is_restored_equals_what_was_saved(checkpoints, tmp_path):
    saved = arrays(1.25)
    first = checkpoints()
    first.save(3, saved, SAID)
    first.save(3, arrays(9.0), SAID)  # there already: left alone
    first.close()
    again = checkpoints()
    assert again.newest_sound() == 3
    mesh = Mesh(np.array(jax.devices()), ("data",))
    whole = NamedSharding(mesh, PartitionSpec())
    like = jax.device_put(arrays(), whole)
    folder = tmp_path / "run" / "checkpoints" / "3"
    found = restore(folder, like)
    equal(found, saved)
    equal(restore(folder, {"ema": like["ema"]}), {"ema": saved["ema"]})
    assert type(found["optimizer"]["optax"][0]) is optax.ScaleByAdamState
    assert all(leaf.sharding == whole for leaf in jax.tree.leaves(found))
    assert fact(folder, "step") == {"step": 3, "val_loss": None}
    assert fact(folder, "loader") == SAID["loader"]
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == sorted(
        (*ARRAYS, *FACTS)
    )

    # Prediction reads one item of weights from what it is given: run, folder or step.
    run = tmp_path / "run"
    assert find(run) == find(run / "checkpoints") == find(folder) == folder
    assert step_of(folder) == 3 and describe(folder) == MODEL
    shapes = jax.eval_shape(lambda: arrays()["params"])
    equal(weights(folder, "raw", shapes), saved["params"])
    equal(weights(folder, "ema", shapes), saved["ema"])
    for name in ("optimizer", "params"):
        for file in sorted((folder / name).rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
    equal(weights(folder, "ema", shapes), saved["ema"])
    assert find(run, weight_items("ema")) == folder

    assert require_model(folder, {"size": "S", "channels": 4}) == MODEL
    with pytest.raises(
        InputError,
        match=r"of another model: model.size S \(config: L\), model.channels 4 \(config: "
        r"32\); name the config that trained it",
    ):
        require_model(folder, {"size": "L", "kernel_size": 3, "channels": 32})
    with pytest.raises(
        InputError, match="predict.weights is 'best'; wanted ema or raw"
    ):
        weights(folder, "best", shapes)
    other = jax.eval_shape(lambda: arrays(width=4)["params"])
    for like in (other, {"stem": shapes["stem"], "head": shapes["stem"]}):
        with pytest.raises(InputError, match="checkpoints/3 is of another model"):
            weights(folder, "ema", like)


def test_a_checkpoint_of_another_network_is_not_gone_on_with(checkpoints, tmp_path):
    kept = checkpoints()
    kept.save(3, arrays(), SAID)
    kept.wait()
    deeper = arrays()
    deeper["params"] = {**deeper["params"], "head": deeper["params"]["stem"]}
    sgd = arrays()
    sgd["optimizer"] = {"optax": optax.sgd(0.1).init(sgd["params"])}
    for like in (arrays(width=4), deeper, sgd):
        with pytest.raises(
            InputError, match="checkpoints/3 does not fit this config's model or optim"
        ) as error:
            restore(tmp_path / "run" / "checkpoints" / "3", like)
        assert "\n" not in str(error.value)


def test_the_newest_step_is_found_by_number(tmp_path):
    for name in ("900", "1000", "1001.orbax-checkpoint-tmp", "notes"):
        (tmp_path / name / "params").mkdir(parents=True)
        checksums.write(tmp_path / name)
    (tmp_path / "2000").mkdir()  # nothing in it
    assert find(tmp_path).name == "1000"
    assert [p.name for p in numbered(tmp_path)] == ["1000", "900"]
    assert find(tmp_path / "notes").name == "notes"
    with pytest.raises(InputError, match="notes is not named by its step"):
        step_of(find(tmp_path / "notes"))


@pytest.fixture
def three(checkpoints, tmp_path):
    """Sound checkpoints of steps 1, 2 and 3."""
    kept = checkpoints(best=0, every=1)
    for step in (1, 2, 3):
        kept.save(step, arrays(step), SAID | {"step": {"step": step}})
    kept.close()
    return tmp_path / "run" / "checkpoints"


def flip(path):
    """One bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


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


def unseal(folder):
    (folder / "SHA256SUMS").unlink()


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
