"""A run whose loss becomes NaN, and the same step again from what it left."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.artifacts import Run
from nisbjax.errors import InputError
from nisbjax.models import build
from nisbjax.train import failure, loop, stage

pytestmark = pytest.mark.usefixtures("linear_network")


@pytest.fixture
def failed(config, tmp_path, monkeypatch):
    """Folder of a run that failed, its message, and the scalars of the step that did."""
    config.train.val_every, config.train.log_every = 0, 0
    config.augment.noise_std = 0.4
    linear = build.make_apply

    def breaking(arguments, dtype, *, remat, **others):
        apply = linear(arguments, dtype, remat=remat)

        def broken(params, images):
            # Adam moves a bias by about lr = 0.1 in each of the first steps.
            far = jnp.abs(params["head"]["bias"]).max() > 0.15
            return jnp.where(far, jnp.nan, apply(params, images))

        return broken

    monkeypatch.setattr(build, "make_apply", breaking)
    seen = []
    make = stage._failure_reporter

    def listening(*arguments):
        report = make(*arguments)
        return lambda state, scalars: seen.append(scalars) or report(state, scalars)

    monkeypatch.setattr(stage, "_failure_reporter", listening)
    with pytest.raises(loop.NotFiniteError) as error:
        stage.run(config, Run(tmp_path / "run"))
    return tmp_path / "run", str(error.value), seen[0]


def test_the_step_is_named_kept_and_replayed(failed, capsys):
    folder, message, scalars = failed
    (path,) = folder.glob("not_finite_step=*.npz")
    number = int(path.stem.partition("=")[2])
    assert number >= 1  # the weights are not those of the beginning
    assert f"step {number}: the loss is {float(scalars['loss'])}" in message
    assert message.count("train/seed0") == 4  # samples
    assert f"python -m nisbjax.train.failure {path}" in message
    assert not (folder / "checkpoints").exists()
    assert not (folder / "train.lock").exists()

    found = failure.replay(path)
    assert found["step"] == number and not found["finite"]
    for name in ("loss", "grad_norm", "per_channel", "pos_weight", "loss_scale"):
        np.testing.assert_array_equal(found[name], scalars[name])
    assert found["logits_not_finite"] == 4 * 4**3 * 3
    assert found["image_min"] < 0 and found["image_max"] > 1  # noise and all
    assert found["crops"] == message.partition("crops: ")[2].split(". Look")[0].split(
        "; "
    )

    assert failure.main([str(path)]) == 0
    printed = capsys.readouterr().out
    assert f"step  {number}\n" in printed and "train/seed0/data.zarr/img" in printed


def test_the_weights_kept_are_those_before_the_step(failed):
    folder, _, _ = failed
    (path,) = folder.glob("*.npz")
    with np.load(path) as file:
        bias = file["params/head/bias"]
        facts = json.loads(str(file["facts"]))
    assert facts["config"]["optimizer.lr"] == 0.1
    # Beyond 0.15 as the step found them, and not a step further.
    assert 0.15 < np.abs(bias).max() < 0.1 * facts["step"] + 0.01


def test_a_file_that_is_not_there(capsys, tmp_path):
    with pytest.raises(InputError, match="no kept step at .*; wanted RUN/not_finite"):
        failure.replay(tmp_path / "x.npz")
    assert failure.main([str(tmp_path / "x.npz")]) == 2
    assert failure.main([]) == 2
    assert "usage: python -m" in capsys.readouterr().out


def test_a_file_of_something_else_is_one_line(failed, tmp_path):
    folder, *_ = failed
    (kept,) = folder.glob("not_finite_step=*.npz")
    path = tmp_path / "not_finite_step=1.npz"
    path.write_bytes(kept.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"not_finite_step=1.npz is no kept step \("):
        failure.replay(path)
    np.savez(path, facts=np.array("{}"))
    with pytest.raises(InputError, match="is no kept step: it lacks batch/images, bat"):
        failure.replay(path)
    with np.load(kept) as file:
        arrays = dict(file)
    facts = json.loads(str(arrays.pop("facts")))
    for change, message in (
        ({"step": "3"}, "step is '3'; wanted a whole number, 0 or more"),
        ({"config": {"train.accumulate": 0}}, "train.accumulate is 0; wanted a whole"),
    ):
        np.savez(path, facts=np.array(json.dumps(facts | change)), **arrays)
        with pytest.raises(InputError, match=message):
            failure.replay(path)
