"""Every key refuses what it cannot mean: hostile values, made rather than listed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax import launch
from nisbjax.config import base_config, flatten
from nisbjax.errors import InputError
from nisbjax.keys import ranges

KEYS = sorted(ranges.RANGES)
SCALARS = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, -1, 0, 1, 2**31, 10**30]),
    st.sampled_from([True, False, None, "", "word", "a/b", "..", "two\nlines", "nan"]),
    st.sampled_from([b"bytes", 1e300, -1e-300, 0.5, 1.0, "0:0,0:0,0:0", 1j, object()]),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
)
HOSTILE = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
    ),
    max_leaves=8,
)


@given(key=st.sampled_from(KEYS), value=HOSTILE)
def test_a_hostile_value_is_valid_or_refused_in_one_line(key, value):
    try:
        ranges.check_flat({key: value})
    except InputError as error:
        # A part of a value is named behind its key.
        assert str(error).startswith((f"{key} is ", f"{key}: "))
        assert "; wanted " in str(error) and len(str(error)) < 400
        assert "\n" not in str(error)


NUMBERS = [k for k in KEYS if isinstance(flatten(base_config())[k], int | float)]
SWITCHES = [k for k in NUMBERS if isinstance(flatten(base_config())[k], bool)]
TUPLES = [k for k in KEYS if isinstance(flatten(base_config())[k], list)]
# A search space of nothing is a grid over the thresholds alone; no word joins nothing.
MAY_BE_EMPTY = ["tune.space", "data.long_erosion", "decode.joins", "skeletonize.also"]
MAY_BE_EMPTY += ["data.train.sources"]
MAY_BE_EMPTY += ["convert.voxel_size_nm", "convert.chunks", "convert.shards"]


def refused(keys, value):
    for key in keys:
        with pytest.raises(InputError, match=f"{key} is "):
            ranges.check_flat({key: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, 1j, b"x", {}])
def test_what_no_key_takes(value):
    refused(KEYS, value)


@pytest.mark.parametrize("value", ["1", True, (1,), []])
def test_a_number_is_no_word_truth_or_tuple(value):
    refused(set(NUMBERS) - set(SWITCHES), value)


@pytest.mark.parametrize("value", [(), (math.nan,) * 3, ("a", "a"), ((),) * 3, 3, "12"])
def test_a_tuple_is_not_empty_and_of_the_right_parts(value):
    refused(set(TUPLES) - set(MAY_BE_EMPTY), value)


def test_a_number_that_python_will_not_write():
    """More than 4,300 digits: `repr` raises."""
    with pytest.raises(InputError, match="seed is a number of thousands of digits; wa"):
        ranges.check_flat({"seed": 10**5000})


REFUSED = {
    "seed": (-1, "seed is -1; wanted a whole number, 0 or more"),
    "train.steps": (0, "train.steps is 0; wanted a whole number, 1 or more"),
    "train.accumulate": (0, "train.accumulate is 0; wanted a whole number, 1 to 65536"),
    "train.mesh": ((), "train.mesh is (); wanted pairs such as (('data', -1), "),
    "optimizer.lr": (
        math.nan,
        "optimizer.lr is nan; wanted a finite number, 0 or more",
    ),
    "ema.decay": (1.0, "ema.decay is 1.0; wanted a number in [0, 1)"),
    "predict.batch_per_device": (0, "predict.batch_per_device is 0; wanted a whole"),
    "predict.window": (
        (32, 32),
        "predict.window is (32, 32); wanted three whole numbers x y z, each 1 or more",
    ),
    "predict.overlap": (1.0, "predict.overlap is 1.0; wanted a number in [0, 1)"),
    "predict.channels": (
        (0, 0),
        "predict.channels is (0, 0); wanted 1 or more values, none twice, each a whole",
    ),
    "predict.activation": (
        "softmax",
        "predict.activation is 'softmax'; wanted one of scale_sigmoid, sigmoid, none",
    ),
    "predict.memory_gb": (0.0, "predict.memory_gb is 0.0; wanted a number in (0, 1e"),
    "predict.roi": ("5:5,0:1,0:1", "predict.roi is '5:5,0:1,0:1'; wanted a box x0:x1"),
    "data.offsets": (((0, 0, 0),), "data.offsets is ((0, 0, 0),); wanted 1 or more"),
    "decode.threshold_from": (
        "1.5",
        "decode.threshold_from is '1.5'; wanted one of value, study or a number in",
    ),
    "decode.joins": (
        ("average", "median"),
        "decode.joins is ('average', 'median'); wanted 0 or more values, each one of",
    ),
    "cluster.workers": (-3, "cluster.workers is -3; wanted a whole number, 0 to 65536"),
    "tune.study": ("a/b", "tune.study is 'a/b'; wanted a name that a folder can have"),
    "tune.space": (
        (("threshold", 0.9, 0.4),),
        "tune.space is (('threshold', 0.9, 0.4),); wanted 0 or more values, none twice",
    ),
}


@pytest.mark.parametrize("key", REFUSED)
def test_the_line_names_key_value_and_what_is_wanted(key):
    value, text = REFUSED[key]
    with pytest.raises(InputError) as caught:
        ranges.check_flat({key: value})
    assert str(caught.value).startswith(text)


def test_a_key_that_there_is_none_of_and_one_that_is_missing():
    config = base_config()
    with config.unlocked():
        config.train.stepz = 5
    with pytest.raises(InputError, match="'train.stepz' is no key of the configuratio"):
        ranges.check(config)
    with config.unlocked():
        del config.train.stepz, config.train.steps
    with pytest.raises(InputError, match="the configuration has no train.steps; begin"):
        ranges.check(config)


def test_whoever_set_a_value_that_others_take_is_told_of_it():
    c = base_config()
    c.train.steps = 0  # and so schedule.steps
    c.data.patch = (0, 0, 0)  # and so predict.window
    with pytest.raises(InputError, match="^data.patch is"):
        ranges.check(c)
    c.data.patch = (16, 16, 16)
    with pytest.raises(InputError, match="^train.steps is 0; wanted"):
        ranges.check(c)


def test_a_long_value_is_cut():
    with pytest.raises(
        InputError, match=r"data.patch is \(1, 1, .*1, \.\.\., 1.* 1\); wanted"
    ) as e:
        ranges.check_flat({"data.patch": [1] * 10_000})
    assert len(str(e.value)) < 200


def test_the_words_are_those_that_are_implemented():
    from nisbjax.data import affine, affinities, augment, labels, loader, normalization
    from nisbjax.decode import masked_edges
    from nisbjax.decode import methods as decoding
    from nisbjax.evaluate import truth
    from nisbjax.infer import blend, conversion, tta
    from nisbjax.infer import compute_dtype as precision
    from nisbjax.models import build, mednext
    from nisbjax.parallel import cluster
    from nisbjax.tune import objective, study

    implemented = {
        "augment.shear": affine.SHEARS,
        "data.edge_stored_at": affinities.STORED_AT,
        "augment.profile": augment.PROFILES,
        "augment.order": augment.ORDERS,
        "data.normalize": normalization.NORMALIZATIONS,
        "data.normalize_per": normalization.PER,
        "data.erosion_axes": labels.EROSION_AXES,
        "data.sampling": loader.SAMPLINGS,
        "decode.mask_edges": masked_edges.MASK_EDGES,
        "decode.method": decoding.METHODS,
        "predict.blend": blend.KINDS,
        "predict.precision": precision.WORDS,
        "predict.activation": conversion.ACTIVATIONS,
        "predict.tta": tta.KINDS,
        "model.size": mednext.SIZES,
        "model.kernel_size": mednext.KERNEL_SIZES,
        "cluster.kind": cluster.KINDS,
        "train.precision": build.COMPUTE,
        "tune.objective": objective.WORDS,
        "tune.sampler": study.SAMPLERS,
        "tune.grid": ("", "null", "None", "none", *study.GRIDS),
    }
    for key, choices in implemented.items():
        named = (str(choice) or '""' for choice in choices)
        wanted = f"one of {', '.join(named)}"
        assert ranges.RANGES[key].wanted == wanted, key
    metrics = ", ".join(truth.WORDS)
    assert ranges.RANGES["evaluate.metrics"].wanted.endswith(f"each one of {metrics}")


# Mode check lists what it finds in a file of its own.
@pytest.mark.parametrize("mode", [m for m in launch.MODES if m != "check"])
def test_a_mode_that_is_refused_touches_nothing(mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = base_config()
    config.predict.memory_gb = math.nan
    for workdir in ("", "run"):
        with pytest.raises(InputError, match="predict.memory_gb is nan; wanted a numb"):
            launch.run_mode(mode, config, workdir)
    assert not list(tmp_path.iterdir())


FORMATS = {
    "predict.output": (".zarr", ".h5"),
    "qc.report": (".md",),
    "mask.output": (".h5", ".hdf5"),
    "decode.output": (".zarr",),
    "skeletonize.output": (".pkl",),
}


@pytest.mark.parametrize(("key", "endings"), FORMATS.items())
def test_an_output_ends_in_its_format(key, endings):
    """`qc.report=words` would write a file of that name into the current folder."""
    for name in ("", "null", *("a/b" + ending for ending in endings)):
        ranges.check_flat({key: name})
    for name in ("words", "a.png", endings[0], "a" + endings[0] + "x", "a.zarr/main"):
        with pytest.raises(
            InputError, match=f"{key} is .*; wanted a name that ends in {endings[0]}"
        ):
            ranges.check_flat({key: name})
