"""From nothing to a score: every stage on made cubes, through the command line's function.

The network is one block of a MedNeXt and learns nothing in three steps; that the demo learns
is shown by `make demo`, and a whole MedNeXt goes this way in the slow campaigns.
"""

import json
import runpy

import pytest
import small_networks

from nisbjax import launch
from nisbjax.artifacts import Run
from nisbjax.errors import InputError


@pytest.fixture(scope="module")
def config():
    c = runpy.run_path("configs/demo.py")["get_config"]()
    c.synth.shape = (48, 40, 36)
    c.data.patch = (16, 16, 16)
    c.model.channels = 4
    c.train.mesh = (("data", 4), ("space", 1))
    c.train.batch_per_device = 1
    c.train.steps = 3
    c.train.val_every = 3
    c.train.val_crops = 3
    c.predict.window = (32, 32, 32)
    c.qc.border_width = 4
    c.tune.thresholds = (0.3, 0.4, 0.5)
    c.tune.space = (("attract", -0.2, -0.2, 1), ("repel", 0.2, 0.4, 2))
    return c


@pytest.fixture(scope="module", autouse=True)
def network():
    with pytest.MonkeyPatch.context() as patch:
        small_networks.use(small_networks.ONE_BLOCK, patch.setattr)
        yield


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    launch.run_mode("demo", config, workdir=str(folder))
    return folder


def test_the_demo_writes_what_it_names(workdir):
    result = json.loads((workdir / "demo.json").read_text())
    rows = result["rows"]
    decoders = ["trained", "chain3", "chain"]
    assert list(rows) == [*decoders, "untrained", "intensity", "truth"]
    assert ("threshold" in rows["chain"], "threshold" in rows["chain3"]) == (0, 1)
    assert "decoded_x1_ch0-1-2-3-4-5_chain_-0.2_" in result["paths"]["segmentation"]
    for row in rows.values():
        assert 0 <= row["nerl"] <= 1
    assert rows["truth"]["nerl"] > 0.95  # 1 but for what erosion takes
    assert rows["intensity"]["nerl"] < rows["truth"]["nerl"]
    for path in result["paths"].values():
        assert (workdir / path).exists()


def test_a_second_test_takes_what_is_there(config, workdir):
    """The parameters of the study, and no window predicted again."""
    run = Run(workdir)
    raw = run.test(3, "seed6").raw("zarr", config.predict.channels)
    before = {p: p.stat().st_mtime_ns for p in raw.rglob("*") if p.is_file()}
    assert before
    config.decode.threshold_from = "study"
    facts = launch.run_mode("test", config, workdir=str(workdir))
    config.decode.threshold_from = "value"
    assert facts["threshold_origin"].startswith("tuned on")
    assert facts["threshold"] is None and facts["parameters"]["attract"] == -0.2
    assert facts["parameters"]["repel"] in (0.2, 0.4)
    assert before == {p: p.stat().st_mtime_ns for p in raw.rglob("*") if p.is_file()}


def test_another_decoder_is_tuned_and_tested(config, workdir):
    c = config.copy_and_resolve_references()
    c.decode.method = "grow"
    c.tune.study = "growing"
    c.tune.sampler = "random"
    c.tune.trials = 2
    c.tune.space = (
        ("threshold", 0.45, 0.5),
        ("low_threshold", 0.4, 0.45),
        ("min_seed", 10, 1000),
    )
    facts = launch.run_mode("tune-test", c, workdir=str(workdir))
    found = facts["segmentation_attributes"]
    assert found["method"] == "grow"
    assert not Run(workdir).tune(3).trials.exists()
    tuned = (found["threshold"], found["low_threshold"], found["min_seed"])
    # The record keeps the keys as they were given: tuned runs of a recipe are compared.
    recorded = facts["config"]
    assert recorded["decode.low_threshold"] == c.decode.low_threshold
    assert recorded["decode.min_seed"] == c.decode.min_seed
    name = "grow_{:g}_{:g}_{:g}_0_nomask".format(*tuned)
    assert facts["segmentation"].endswith(f"decoded_x1_ch0-1-2_{name}.zarr")
    c.decode.threshold_from = "study"
    again = launch.run_mode("decode", c, workdir=str(workdir))
    assert str(again) == facts["segmentation"]
    c.decode.method = "affinity_cc"
    with pytest.raises(InputError, match="best_params.yaml is of decode.method=grow"):
        launch.run_mode("test", c, workdir=str(workdir))


def test_stages_alone_find_the_files_of_the_run(config, workdir):
    place = Run(workdir).test(3, "seed6")
    assert launch.run_mode("qc", config, workdir=str(workdir)) == place.qc_report
    assert launch.run_mode("mask", config, workdir=str(workdir)) == place.mask
    segmentation = launch.run_mode("decode", config, workdir=str(workdir))
    assert segmentation.parent == place.path
    facts = launch.run_mode("evaluate", config, workdir=str(workdir))
    assert facts["segmentation"] == str(segmentation)


def test_a_checkpoint_of_another_model(config, workdir):
    config.model.channels = 8
    with pytest.raises(InputError, match=r"model.channels 4 \(config: 8\)"):
        launch.run_mode("test", config, workdir=str(workdir))
    config.model.channels = 4


def test_training_that_is_done_goes_on_with_nothing(config, workdir):
    history = Run(workdir).history.read_text()
    launch.run_mode("train", config, workdir=str(workdir))
    assert Run(workdir).history.read_text() == history
