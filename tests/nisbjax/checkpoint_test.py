"""What is kept, that it comes back equal, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nisbjax.checkpoint import (
    Checkpoints,
    describe,
    find,
    require_model,
    step_of,
    weights,
)
from nisbjax.errors import InputError

MODEL = {"size": "S", "kernel_size": 3, "channels": 4}
FACTS = {"progress": {"step": 3}, "model": MODEL, "config": {"seed": 42}}


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
    assert kept.latest is None and kept.steps == []
    losses = {1: 0.5, 2: 0.9, 3: 0.4, 4: 0.7, 5: 0.8, 6: 0.3, 7: None, 8: 0.6, 9: None}
    seen = []
    for step, loss in losses.items():
        kept.save(step, small(), FACTS, loss)
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
    assert kept.latest == 9


def test_nothing_but_the_newest(checkpoints):
    kept = checkpoints(best=0, every=0)
    for step in (1, 2, 3):
        kept.save(step, small(), FACTS, 0.1 * step)
    kept.wait()
    assert kept.steps == [3]


def test_what_is_restored_equals_what_was_saved(checkpoints, tmp_path):
    saved = arrays(1.25)
    first = checkpoints()
    first.save(3, saved, FACTS)
    first.save(3, arrays(9.0), FACTS)  # there already: left alone
    first.close()
    again = checkpoints()
    assert again.latest == 3
    mesh = Mesh(np.array(jax.devices()), ("data",))
    whole = NamedSharding(mesh, PartitionSpec())
    like = jax.device_put(arrays(), whole)
    found, progress = again.restore(3, like)
    equal(found, saved)
    assert type(found["optimizer"]["optax"][0]) is optax.ScaleByAdamState
    assert all(leaf.sharding == whole for leaf in jax.tree.leaves(found))
    assert progress == {"step": 3}

    # Prediction reads one item of weights from what it is given: run, folder or step.
    run = tmp_path / "run"
    folder = run / "checkpoints" / "3"
    assert find(run) == find(run / "checkpoints") == find(folder) == folder
    assert step_of(folder) == 3 and describe(folder) == MODEL
    shapes = jax.eval_shape(lambda: arrays()["params"])
    equal(weights(folder, "raw", shapes), saved["params"])
    equal(weights(folder, "ema", shapes), saved["ema"])
    for name in ("optimizer", "params"):
        for file in sorted((folder / name).rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
    equal(weights(folder, "ema", shapes), saved["ema"])

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


def test_a_checkpoint_of_another_network_is_not_gone_on_with(checkpoints):
    kept = checkpoints()
    kept.save(3, arrays(), FACTS)
    kept.wait()
    deeper = arrays()
    deeper["params"] = {**deeper["params"], "head": deeper["params"]["stem"]}
    sgd = arrays()
    sgd["optimizer"] = {"optax": optax.sgd(0.1).init(sgd["params"])}
    for like in (arrays(width=4), deeper, sgd):
        with pytest.raises(
            InputError, match="checkpoints/3 does not fit this config's model or optim"
        ) as error:
            kept.restore(3, like)
        assert "\n" not in str(error.value)


def test_the_newest_step_is_found_by_number(tmp_path):
    for name in ("900", "1000", "1001.orbax-checkpoint-tmp", "notes"):
        (tmp_path / name / "params").mkdir(parents=True)
    (tmp_path / "2000").mkdir()  # nothing in it
    assert find(tmp_path).name == "1000"
    assert find(tmp_path / "notes").name == "notes"
    with pytest.raises(InputError, match="notes is not named by its step"):
        step_of(find(tmp_path / "notes"))


def test_no_checkpoint_is_refused(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(
            InputError, match=f"no checkpoint at {path}; wanted a run's"
        ):
            find(path)


def test_facts_are_readable_without_us(checkpoints, tmp_path):
    kept = checkpoints()
    kept.save(3, arrays(), FACTS)
    kept.wait()
    folder = tmp_path / "run" / "checkpoints" / "3"
    files = {p.parent.name: p for p in folder.glob("*/metadata") if p.is_file()}
    assert json.loads(files["config"].read_text()) == {"seed": 42}
    assert json.loads(files["model"].read_text()) == MODEL
