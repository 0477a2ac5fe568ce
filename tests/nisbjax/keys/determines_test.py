"""A key changes an artifact's fingerprint exactly where it changes the artifact."""

import pathlib
import runpy

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.artifacts import VolumeDir
from nisbjax.config import base_config, flatten
from nisbjax.errors import InputError
from nisbjax.keys import determines, ranges
from nisbjax.modes.segmentation import decode
from nisbjax.store.volume import create_zarr, open_affinities, open_labels

OTHER = runpy.run_path(str(pathlib.Path(__file__).with_name("values.py")))["OTHER"]
KEYS = sorted(ranges.RANGES)
# Attributes that say where an artifact comes from, not what it is.
ORIGIN = ("software", "source", "config_fingerprint", "network", "mask")
ORIGIN += ("source_fingerprint", "mask_fingerprint")


def changed(config, *keys):
    """A copy with another value for some keys."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({key: OTHER[key] for key in keys})
    return config


def content(volume):
    described = {k: v for k, v in volume.attributes.items() if k not in ORIGIN}
    return repr(described), str(volume.dtype), volume.read().tobytes()


def compare(config, artifact, make, cheap=()):
    """Keys whose change shows in the artifact and in its facts in different ways.

    Args:
      config: whose artifact is made by `make(config)`, which returns its content.
      artifact: a word of `determines.ARTIFACTS`.
      make: called once for each key of the facts, and once for all others together.
      cheap: keys outside the facts that are tried one by one besides.
    """
    facts, before = determines.facts(config, artifact), make(config)
    assert make(config) == before
    flat, other = flatten(config), flatten(OTHER)
    different = [
        key
        for key in KEYS
        if determines.facts({**flat, key: other[key]}, artifact) != facts
    ]
    assert different
    wrong = [key for key in different if make(changed(config, key)) == before]
    rest = [key for key in KEYS if key not in different]
    if make(changed(config, *rest)) != before:
        wrong.append("one of the others")
    return wrong + [key for key in cheap if make(changed(config, key)) != before]


def test_every_key_has_another_valid_value():
    assert sorted(OTHER) == KEYS
    ranges.check_flat(OTHER)


def test_every_key_has_a_line_and_every_line_a_key():
    sections = {key.split(".")[0] for key in KEYS}
    named = set(determines._KEYS)
    for key in KEYS:
        assert key in named or key.split(".")[0] in determines._SECTIONS, (
            f"say in nisbjax/keys/determines.py what {key} determines"
        )
        assert set(determines.artifacts_of(key)) <= set(determines.ARTIFACTS)
    assert named <= set(KEYS) and set(determines._SECTIONS) <= sections
    used = {word for key in KEYS for word in determines.artifacts_of(key)}
    assert used == set(determines.ARTIFACTS)


@pytest.fixture
def affinities(tmp_path):
    """Random edges of 12 x 10 x 9 voxels, and a mask without a corner."""
    values = np.random.default_rng(0).random((3, 12, 10, 9)).astype(np.float16)
    raw = create_zarr(
        tmp_path / "raw.zarr",
        shape=values.shape,
        dtype=np.float16,
        chunks=(1, 8, 8, 8),
        axes="cxyz",
        attributes={"edge_stored_at": "source"},
    )
    raw.write(..., values)
    keep = np.ones((12, 10, 9), np.uint8)
    keep[3:6, 3:6, 3:6] = 0
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file["main"] = keep
    return tmp_path / "raw.zarr", tmp_path / "mask.h5"


@pytest.mark.parametrize(
    ("method", "idle"),
    [
        (
            "affinity_cc",
            ("decode.low_threshold", "decode.min_seed", "decode.anchor"),
        ),
        ("grow", ("decode.low",)),
        ("chain3", ("decode.attract", "decode.low_threshold")),
    ],
)
def test_segments_change_with_their_keys_alone(tmp_path, affinities, method, idle):
    raw, mask = affinities
    config = base_config()
    config.decode.update({"method": method, "min_seed": 100 if method != "grow" else 5})
    config.decode.threshold = 0.8
    made = iter(range(1000))

    def make(chosen):
        chosen = changed(chosen)
        chosen.cluster.kind = "threads"
        out = VolumeDir(tmp_path / str(next(made)))
        return content(open_labels(decode(chosen, out.path / "labels.zarr", raw, mask)))

    assert compare(config, "segmentation", make, idle) == []


def test_segments_of_joined_fragments_change_with_their_keys_alone(tmp_path):
    """Six channels of which each key of a join has a say; long links of two voxels."""
    values = np.random.default_rng(1).random((6, 16, 14, 12)).astype(np.float16)
    raw = create_zarr(
        tmp_path / "raw.zarr",
        shape=values.shape,
        dtype=np.float16,
        chunks=(1, 16, 16, 16),
        axes="cxyz",
        attributes={
            "edge_stored_at": "source",
            "offsets": [*np.eye(3, dtype=int).tolist(), *(2 * np.eye(3)).tolist()],
        },
    )
    raw.write(..., values)
    mask = np.ones((16, 14, 12), np.uint8)
    mask[3:6, 3:6, 3:6] = 0
    np.save(tmp_path / "mask.npy", mask)
    config = base_config()
    joins = {"joins": ("average", "absorb", "quantile"), "faces": 3, "short": 0.5}
    config.decode.update({"anchor": 2, "low": 0.5, "absorb_below": 30, **joins})
    config.decode.update({"attract": 1.0, "repel": -1.0})
    made = iter(range(1000))

    def make(chosen):
        chosen = changed(chosen)
        chosen.cluster.kind = "threads"
        path = tmp_path / str(next(made)) / "labels.zarr"
        return content(
            open_labels(decode(chosen, path, raw.source, tmp_path / "mask.npy"))
        )

    config.decode.method = "chain"
    assert compare(config, "segmentation", make) == []


def test_an_empty_word_among_several_says_nothing():
    config = base_config()
    config.decode.method = "chain"
    facts = determines.facts(config, "segmentation")
    config.decode.joins = ("",)  # of --config.decode.joins=
    assert determines.facts(config, "segmentation") == facts
    assert "decode.faces" not in facts
    config.decode.joins = ("quantile",)
    facts = determines.facts(config, "segmentation")
    assert "decode.faces" in facts and "decode.short" not in facts
    config.decode.method = "grow"
    assert "decode.joins" not in determines.facts(config, "segmentation")


def test_a_mask_refuses_by_the_name_of_what_changed(tmp_path, affinities):
    """The mask of another border: not "another mask", but which number differs."""
    raw, _ = affinities
    create_zarr(
        tmp_path / "img",
        shape=(12, 10, 9, 1),
        dtype=np.uint8,
        chunks=(8, 8, 8, 1),
        axes="xyzc",
    ).write(..., np.full((12, 10, 9, 1), 9, np.uint8))
    config = base_config()
    out = tmp_path / "labels.zarr"
    for width in (1, 2):
        with h5py.File(tmp_path / "mask.h5", "w") as file:
            file["main"] = np.ones((12, 10, 9), np.uint8)
            file["main"].attrs.update(
                {"low_z": 0, "high_z": 9, "border_width": width, "bg_thresh": 5.0}
                | {"source_image": "img", "axis_order": "XYZ"}
            )
        if width == 1:
            decode(config, out, raw, tmp_path / "mask.h5")
    with pytest.raises(InputError, match=r"mask.border_width: 1, now 2"):
        decode(config, out, raw, tmp_path / "mask.h5")


def test_affinities_change_with_their_keys_alone(tmp_path):
    """A stand-in for the network: logits that know where in the window they are."""
    from nisbjax.infer.network import Network
    from nisbjax.modes.prediction import predict_by

    image = create_zarr(
        tmp_path / "img",
        shape=(20, 18, 17, 1),
        dtype=np.uint8,
        chunks=(8, 8, 8, 1),
        axes="xyzc",
    )
    draw = np.random.default_rng(0)
    # Within 20 to 200, so that the two normalisations differ.
    image.write(..., draw.integers(20, 200, image.shape, np.uint8))
    config = base_config()
    config.data.patch = (16, 16, 16)
    config.predict.update({"format": "zarr", "batch_per_device": 1})
    made = iter(range(1000))

    def apply(params, images):
        ramp = jnp.arange(images.shape[1], dtype=images.dtype)
        return (images - 0.3) * (params + ramp[None, :, None, None, None])

    params = np.arange(1, 7, dtype=np.float32)[None, None, None, None]

    def make(chosen):
        chosen = changed(chosen)
        chosen.predict.format = "zarr"
        network = Network(apply, params, {})
        out = VolumeDir(tmp_path / str(next(made)))
        return content(
            open_affinities(predict_by(chosen, network, tmp_path / "img", out))
        )

    # What the network is made of: the stand-in has its own weights and type, and one
    # program for every batch.
    of_the_network = {key for key in KEYS if key.startswith("model.")}
    of_the_network |= {
        "predict.weights",
        "predict.precision",
        "predict.batch_per_device",
    }
    of_the_network -= {"model.in_channels"}

    def compared(chosen):
        if chosen.model.in_channels != 1:  # refused
            return "another network"
        return make(chosen)

    wrong = compare(config, "prediction", compared, ("predict.memory_gb",))
    assert set(wrong) <= of_the_network


def test_a_scale_is_idle_without_its_activation():
    config = base_config()
    assert "predict.scale" in determines.facts(config, "prediction")
    config.predict.activation = "sigmoid"
    assert "predict.scale" not in determines.facts(config, "prediction")


def test_reports_and_masks_change_with_their_keys(tmp_path, monkeypatch):
    """Planes that get worse towards the end and a dark rim: every cut has a say."""
    from nisbjax.modes.quality import paths
    from nisbjax.qc import stage as qc

    monkeypatch.setattr(qc.pictures, "draw_all", lambda *_: ())

    draw = np.random.default_rng(0)
    shape = (24, 20, 60)
    values = draw.normal(0.6, 0.01, (3, *shape)).astype(np.float16)
    for z in range(9):
        values[..., z] *= z / 12
    values[..., -12:] *= np.linspace(1, 0.5, 12)
    raw = create_zarr(
        tmp_path / "raw.zarr", shape=values.shape, dtype=np.float16,
        chunks=(1, 8, 8, 8), axes="cxyz",
    )  # fmt: skip
    raw.write(..., values)
    pixels = draw.integers(40, 200, (*shape, 1), np.uint8)
    pixels[:4] = 10
    image = create_zarr(
        tmp_path / "img", shape=pixels.shape, dtype=np.uint8,
        chunks=(8, 8, 8, 1), axes="xyzc",
    )  # fmt: skip
    image.write(..., pixels)
    config = base_config()
    config.qc.update(
        {"border_width": 4, "refine_window": 4, "k_edge": 3, "z_stride": 1}
    )
    out = VolumeDir(tmp_path / "out")

    def make(chosen):
        chosen = changed(chosen)
        mask = qc.run(
            chosen.qc,
            paths(out),
            prediction=tmp_path / "raw.zarr",
            image=tmp_path / "img",
            memory_gb=chosen.decode.memory_gb,
        )
        assert mask == out.mask
        # One folder for all of them: an older report or mask is not believed.
        with h5py.File(mask) as file:
            return out.qc_report.read_text(), file["main"][:].tobytes()

    assert compare(config, "report", make) == []


def test_weights_are_not_of_resources():
    facts = determines.facts(base_config(), "weights")
    assert {"seed", "optimizer.lr", "data.offsets", "train.batch_per_device"} <= set(
        facts
    )
    for key in (
        "train.loader_threads",
        "data.root",
        "predict.scale",
        "train.val_every",
    ):
        assert key not in facts


def test_facts_of_a_flat_configuration_of_another_program():
    flat = flatten(base_config())
    assert determines.facts(flat, "best") == determines.facts(base_config(), "best")
    more = {**flat, "tune.older": 1, "waterz.scoring": "x"}
    assert determines.facts(more, "best") == determines.facts(flat, "best")


def test_a_refusal_names_key_and_both_values():
    a = determines.facts(base_config(), "segmentation")
    determines.require_equal(a, dict(a), "x.json", "move it away")
    b = {**a, "decode.threshold": 0.6, "decode.min_size": 3}
    with pytest.raises(InputError) as caught:
        determines.require_equal(a, b, "x.json", "move it away")
    assert str(caught.value) == (
        "x.json was made with decode.min_size 0, now it is 3 (and other "
        "decode.threshold); move it away"
    )
    assert determines.digest(a) != determines.digest(b)
