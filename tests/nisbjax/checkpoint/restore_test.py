"""What is restored equals what was saved, or is refused as of another network."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from small_checkpoints import MODEL, SAID, arrays, equal

from nisbjax.checkpoint.checkpoint import (
    ARRAYS,
    FACTS,
    describe,
    fact,
    find,
    require_model,
    step_of,
    weight_items,
)
from nisbjax.checkpoint.restore import restore, weights
from nisbjax.errors import InputError


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
