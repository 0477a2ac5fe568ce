"""Words of other programs for the order of axes, each in its own spelling."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.store.axes import WORDS, multiscales, named_axes, order

SHAPE = (12, 18, 20)


def objects(letters, key="name", **more):
    return [{key: letter, **more} for letter in letters]


SPELLINGS = {
    "letters": ["z", "y", "x"],
    "capitals": ["Z", "Y", "X"],
    "text": "zyx",
    "capital text": "ZYX",
    "commas": "z,y,x",
    "commas and blanks": "z, y, x",
    "blanks": " z y x ",
    "dashes": "z-y-x",
    "as Python prints it": "['z', 'y', 'x']",
    "as Python prints a tuple": "('z', 'y', 'x')",
    "JSON text": '["z", "y", "x"]',
    "objects": objects("zyx", type="space", unit="nanometer"),
    "objects as text": json.dumps(objects("zyx")),
    "axistags": {"axes": objects("zyx", "key", typeFlags=2)},
    "axistags as text": json.dumps({"axes": objects("zyx", "key", typeFlags=2)}),
    "words": ["depth", "height", "width"],
    "scales of a file": ["/z", "/y", "/x"],
    "COSEM": {"axes": ["z", "y", "x"], "ordering": "C", "units": ["nm"] * 3},
    "COSEM, Fortran": {"axes": ["x", "y", "z"], "ordering": "F"},
}


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("value", SPELLINGS.values(), ids=SPELLINGS)
def test_every_word_in_every_spelling(word, value):
    known = word != "transform" or isinstance(value, dict)
    assert named_axes("a", SHAPE, {word: value}, {}) == ("zyx" if known else "")
    assert named_axes("a", SHAPE, {word.upper(): value}, {}) == ("zyx" if known else "")
    assert named_axes("a", SHAPE, {}, {"series": value}) == "zyx"


@pytest.mark.parametrize(
    "value",
    [
        ["c", "z", "y", "x"],
        ["channel", "z", "y", "x"],
        ["Channels", "z", "y", "x"],
        ["c^", "z", "y", "x"],  # funlib's mark
        ["affinity^", "z", "y", "x"],
        "czyx",
        "channel, z, y, x",
        [{"name": "offset", "type": "channel"}, *objects("zyx", type="space")],
    ],
    ids=str,
)
def test_names_of_a_channel_axis(value):
    assert named_axes("a", (3, 4, 5, 6), {"axes": value}, {}) == "czyx"


@pytest.mark.parametrize("name", ["t", "time", "T", "frames"])
def test_names_of_a_time_axis(name):
    value = [name, "z", "y", "x"]
    assert named_axes("a", (1, 4, 5, 6), {"axes": value}, {}) == "tzyx"
    value = [{"name": name, "type": "time"}, *objects("zyx")]
    assert named_axes("a", (1, 4, 5, 6), {"axes": value}, {}) == "tzyx"


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        True,
        "",
        [],
        {},
        [None, None, None],
        ["", "", ""],
        ["dim_0", "dim_1", "dim_2"],  # xarray
        ["phony_dim_0", "phony_dim_1", "phony_dim_2"],  # netCDF
        ["d0", "d1", "d2"],  # funlib
        {"scale": [1, 1, 1]},
    ],
    ids=str,
)
def test_what_names_no_axis_says_nothing(value):
    assert named_axes("a", SHAPE, {"axes": value, "transform": value}, {}) == ""


@pytest.mark.parametrize(
    "value, problem",
    [
        (["q", "y", "x"], "names an axis 'q'"),
        ("qyx", "names an axis 'q'"),
        ("unnamed", "names an axis 'u'"),
        ([2, 1, 0], "names an axis 2"),
        (["z", "y"], "names 2 axes"),
        ("czyx", "names 4 axes"),
        ("x" * 10_001, "is a text of 10001 letters"),
        (["z", "y", "y"], "names y twice"),
        (["z", None, "x"], "names some axes and leaves others open"),
        ({"x": 0, "y": 1, "z": 2}, "names axes in no order"),
    ],
)
def test_what_is_not_understood_is_refused(value, problem):
    with pytest.raises(
        InputError, match=f"raw.h5 has the attribute axes = .*{problem}"
    ):
        named_axes("raw.h5", SHAPE, {"axes": value}, {})


def test_two_words_that_contradict_each_other():
    said = {"axes": ["x", "y", "z"], "axis_names": ["z", "y", "x"]}
    message = "its axes says x y z and its axis_names says z y x"
    with pytest.raises(InputError, match=f"a.zarr contradicts itself: {message}"):
        named_axes("a.zarr", SHAPE, said, {})
    with pytest.raises(
        InputError, match="its axes says x y z and its series says z y x"
    ):
        named_axes("a.tif", SHAPE, {"axes": "xyz"}, {"series": "zyx"})
    agreed = {"axes": ["z", "y", "x"], "axis_order": "ZYX"}
    assert named_axes("a", SHAPE, agreed, {"dimension_names": None}) == "zyx"


def test_where_each_wanted_axis_is_stored():
    assert order("a", (12, 18, 20), "zyx", "xyz") == [2, 1, 0]
    assert order("a", (3, 12, 18, 20), "czyx", "cxyz") == [0, 3, 2, 1]
    assert order("a", (3, 12, 18, 20), "czyx", "xyzc") == [3, 2, 1, 0]
    # One time point and one channel are left out.
    assert order("a", (1, 1, 12, 18, 20), "tczyx", "xyz") == [4, 3, 2]


def test_axes_that_are_not_the_wanted_ones_are_refused():
    with pytest.raises(
        InputError,
        match=r"a has shape \(5, 6, 7\) and says that its axes are c y x with 5 channels; "
        "wanted the axes x y z",
    ):
        order("a", (5, 6, 7), "cyx", "xyz")
    with pytest.raises(InputError, match="t z y x with 2 time points; wanted"):
        order("a", (2, 5, 6, 7), "tzyx", "xyz")
    with pytest.raises(InputError, match="are z y x; wanted the axes c x y z"):
        order("a", (5, 6, 7), "zyx", "cxyz")


def image(axes=tuple("zyx"), path="0", **more):
    return {"axes": list(axes), "datasets": [{"path": path}], **more}


def test_multiscales_of_the_group_above():
    level = {"multiscales": [image(objects("zyx", type="space"), version="0.4")]}
    words = multiscales(level, "0")
    assert named_axes("a", SHAPE, {}, words) == "zyx"
    assert multiscales(level, "1") == {}  # not one of its levels
    assert multiscales({"ome": {"version": "0.5", **level}}, "0") == words
    nested = {"multiscales": [image(path="/scale0/image")]}
    assert multiscales(nested, "scale0/image") == {"multiscales": ["z", "y", "x"]}
    # 0.1 and 0.2 had no key for axes: always five, in this order.
    old = {"multiscales": [{"version": "0.1", "datasets": [{"path": "0"}]}]}
    assert named_axes("a", (1, 2, 3, 4, 5), {}, multiscales(old, "0")) == "tczyx"
    two = {"multiscales": [image("zyx"), image("xyz")]}
    with pytest.raises(InputError, match="multiscales says z y x and its multiscales1"):
        named_axes("a", SHAPE, {}, multiscales(two, "0"))


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.text("xyzct,^[]{}\"' ", max_size=8)
    | st.sampled_from(["name", "axes", "path", "0", "datasets", "transform", "dim_0"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "axes", "type", "key", "datasets", "path", "x"])
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(WORDS), ANYTHING), ANYTHING)
def test_whatever_is_said_is_read_or_refused(said, fact):
    try:
        letters = named_axes("a", SHAPE, said, {"dimension_names": fact})
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert letters == "" or len(set(letters)) == 3


@given(st.dictionaries(st.sampled_from(["ome", "multiscales"]), ANYTHING))
def test_whatever_a_group_says(attributes):
    assert isinstance(multiscales(attributes, "0"), dict)


@pytest.mark.parametrize(
    ("value", "rank"), [(["/x", None, None], 3), ([None, "x", None, "z"], 4)]
)
def test_axes_that_are_named_in_part_and_stand_as_usual_are_as_unnamed(value, rank):
    # A single dimension scale, as h5py and MATLAB attach one; as c x y z in four.
    assert named_axes("a.h5", (4,) * rank, {}, {"dimension scales": value}) == ""


def test_axes_that_are_named_in_part_and_stand_elsewhere_are_refused():
    with pytest.raises(InputError, match="names some axes and leaves others open"):
        named_axes("a.h5", (4, 4, 4), {}, {"dimension scales": ["z", None, None]})
