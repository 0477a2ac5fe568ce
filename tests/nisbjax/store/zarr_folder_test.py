"""zarr arrays of other programs: names of chunks, axes in groups above, broken metadata."""

import copy
import json
import os

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.store.volume import open_image, open_labels, open_volume

VALUES = np.arange(1, 5 * 6 * 7 + 1, dtype=np.uint16).reshape(5, 6, 7)
TURNED = np.ascontiguousarray(VALUES.T)
CHUNKS = (2, 3, 4)


def array(path, values=VALUES, version=2, **options):
    zarr.create_array(
        str(path), data=values, chunks=CHUNKS, zarr_format=version, **options
    )
    return path


def nested(path, **options):
    keys = {"name": "v2", "separator": "/"}
    return array(path, chunk_key_encoding=keys, **options)


def dotted(path):
    return array(
        path, version=3, chunk_key_encoding={"name": "default", "separator": "."}
    )


def edit(path, name=".zarray", **changes):
    metadata = json.loads((path / name).read_text())
    for key, value in changes.items():
        if value is ...:
            del metadata[key]
        else:
            metadata[key] = value
    (path / name).write_text(json.dumps(metadata))


def refused(path, message, call=open_volume):
    with pytest.raises(InputError, match=message) as info:
        call(path)
    assert "\n" not in str(info.value)


def test_nested_chunks_without_a_separator(tmp_path):
    """They read as zeros in zarr and TensorStore."""
    path = nested(tmp_path / "a")
    edit(path, dimension_separator=...)
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    path = array(tmp_path / "b")
    edit(path, dimension_separator=...)
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    np.testing.assert_array_equal(open_volume(nested(tmp_path / "c")).read(), VALUES)


def test_chunks_of_both_kinds_are_refused(tmp_path):
    path = nested(tmp_path / "a")
    edit(path, dimension_separator=...)
    (path / "0.0.0").write_bytes(b"")
    refused(
        path, "does not say what separates .* names like both 0.0.0 and 0/0/0; write"
    )


def test_chunks_that_are_not_named_as_the_metadata_say(tmp_path):
    path = nested(tmp_path / "a")
    edit(path, dimension_separator=".")
    refused(path, "says that '.' separates the numbers .* holds names like 0/0/0")
    path = array(tmp_path / "b")
    edit(path, dimension_separator="/")
    refused(path, "says that '/' separates the numbers .* holds names like 0.0.0")
    edit(path, dimension_separator="-")
    refused(path, "has dimension_separator '-'; wanted '.' or '/'")


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_chunks_that_are_no_files(tmp_path, kind):
    """TensorStore takes a folder for a chunk never written, and waits for a pipe."""
    chunk = array(tmp_path / "a") / "1.0.1"
    chunk.unlink()
    if kind == "folder":
        chunk.mkdir()
    elif kind == "pipe":
        os.mkfifo(chunk)
    else:
        chunk.symlink_to("nowhere")
    refused(tmp_path / "a", "a has a chunk 1.0.1 that is no file")
    for name, made in (
        ("1/0/1", nested(tmp_path / "n")),
        ("c/1/0/1", array(tmp_path / "v3", version=3)),
        ("1/0/1", nested(tmp_path / "v3n", version=3)),
        ("c.1.0.1", dotted(tmp_path / "v3d")),
    ):
        (made / name).unlink()
        chunk.rename(made / name)
        refused(made, f"{made.name} has a chunk {name} that is no file")
        (made / name).rename(chunk)
    flat = nested(tmp_path / "b")
    os.mkfifo(flat / "7")
    refused(flat, "b has a chunk 7 that is no file")


@pytest.mark.parametrize(
    "attributes",
    [
        {"_ARRAY_DIMENSIONS": ["z", "y", "x"]},
        {"axis_names": ["z", "y", "x"], "voxel_size": [12, 9, 9]},
        {"axes": [{"name": n, "type": "space"} for n in "zyx"]},
        {"axis_order": "ZYX"},
        {"transform": {"axes": ["z", "y", "x"], "scale": [12, 9, 9]}},
    ],
    ids=lambda a: next(iter(a)),
)
@pytest.mark.parametrize("version", [2, 3])
def test_words_of_the_array_itself(tmp_path, version, attributes):
    path = array(tmp_path / "a", TURNED, version, attributes=attributes)
    labels = open_labels(path)
    np.testing.assert_array_equal(labels.read(), VALUES)
    assert labels.chunks == (4, 3, 2) and labels.stored_axes == "zyx"
    assert labels.attributes["axes"] == ["x", "y", "z"]
    assert open_volume(path).axes == "zyx"  # as it says where nothing is wanted


def test_dimension_names(tmp_path):
    path = array(tmp_path / "a", TURNED, 3, dimension_names=["z", "y", "x"])
    np.testing.assert_array_equal(open_labels(path).read(), VALUES)
    np.testing.assert_array_equal(open_image(path).read()[..., 0], VALUES)
    path = array(tmp_path / "b", VALUES, 3, dimension_names=[None, None, None])
    np.testing.assert_array_equal(open_labels(path).read(), VALUES)
    options = {"dimension_names": ["z", "y", "x"], "attributes": {"axes": "xyz"}}
    path = array(tmp_path / "c", VALUES, 3, **options)
    refused(
        path, "contradicts itself: its axes says x y z and its dimension_names says z"
    )


def multiscales(*paths, axes="zyx", version="0.4"):
    named = [{"name": n, "type": "space"} for n in axes]
    datasets = [{"path": p} for p in paths]
    return [{"version": version, "axes": named, "datasets": datasets}]


@pytest.mark.parametrize(
    "inner", ["0", "scale0/image", "labels/cells/0", "a/b/c/d/e/f"]
)
def test_ome_zarr_0_4(tmp_path, inner):
    group = tmp_path / "a.zarr"
    array(group / inner, TURNED)
    (group / ".zgroup").write_text('{"zarr_format": 2}')
    above = {"multiscales": multiscales("s1", inner)}
    (group / ".zattrs").write_text(json.dumps(above))
    np.testing.assert_array_equal(open_labels(group / inner).read(), VALUES)
    # Another group's words on its own levels.
    other = {"multiscales": multiscales("s1", "s2")}
    (group / ".zattrs").write_text(json.dumps(other))
    np.testing.assert_array_equal(open_labels(group / inner).read(), TURNED)


@pytest.mark.parametrize("inner", ["0", "scale0/image"])
def test_ome_zarr_0_5(tmp_path, inner):
    group = tmp_path / "a.zarr"
    above = {
        "ome": {"version": "0.5", "multiscales": multiscales(inner, version="0.5")}
    }
    zarr.open_group(str(group), mode="w", zarr_format=3, attributes=above)
    array(group / inner, TURNED, 3)
    np.testing.assert_array_equal(open_labels(group / inner).read(), VALUES)
    os.symlink(group, tmp_path / "link.zarr")
    np.testing.assert_array_equal(
        open_labels(tmp_path / "link.zarr" / inner).read(), VALUES
    )


def test_channels_and_time_of_ome_zarr(tmp_path):
    values = np.stack([TURNED, TURNED + 1])[None]  # t c z y x
    group = tmp_path / "a.zarr"
    options = {"chunks": (1, 1, *CHUNKS), "zarr_format": 2}
    zarr.create_array(str(group / "0"), data=values, **options)
    above = {"multiscales": multiscales("0", axes="tczyx")}
    (group / ".zattrs").write_text(json.dumps(above))
    image = open_image(group / "0")
    np.testing.assert_array_equal(image.read(), np.stack([VALUES, VALUES + 1], -1))
    refused(
        group / "0", "t c z y x with 2 channels; wanted the axes x y z", open_labels
    )
    assert open_volume(group / "0").axes == "czyx"  # one time point is none
    zarr.create_array(str(group / "1"), data=np.concatenate([values] * 2), **options)
    above = {"multiscales": multiscales("1", axes="tczyx")}
    (group / ".zattrs").write_text(json.dumps(above))
    for call in (open_volume, open_image, open_labels):
        refused(group / "1", "with 2 time points", call)


def test_axes_that_are_not_wanted(tmp_path):
    path = array(tmp_path / "a", attributes={"axes": ["c", "y", "x"]})
    for call in (open_volume, open_image, open_labels):
        refused(path, "its axes are c y x.*wanted the axes", call)
    path = array(tmp_path / "b", attributes={"axes": ["q", "y", "x"]})
    for call in (open_volume, open_image, open_labels):
        refused(path, "names an axis 'q'", call)


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"[1, 2]", "holds a JSON list; wanted an object"),
        (b"5", "holds a JSON int"),
        (b'"zyx"', "holds a JSON str"),
        (b"{", "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b'{"name": "Z\xfcrich"}', "is not valid JSON: 'utf-8'"),
        (b'{"a": ' * 20_000, "is not valid JSON"),
        (b'{"a": ' * 600 + b"1" + b"}" * 600, ""),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b"null", ""),
        (b'{"a": NaN, "b": Infinity}', ""),
        (b'{"a": 1, "a": 2}', ""),
        (b'{"a": "\\ud800"}', ""),
    ],
)
def test_attributes_that_are_no_object(tmp_path, content, problem):
    path = array(tmp_path / "a")
    (path / ".zattrs").write_bytes(content)
    if problem:
        refused(path, f"a/.zattrs {problem}")
        return
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(), VALUES)
    json.dumps(volume.attributes, allow_nan=False)
    repr(volume.attributes).encode()


def test_attributes_that_are_no_file(tmp_path):
    path = array(tmp_path / "a")
    (path / ".zattrs").unlink(missing_ok=True)
    (path / ".zattrs").mkdir()
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    (path / ".zattrs").rmdir()
    os.mkfifo(path / ".zattrs")
    refused(path, "a/.zattrs is a device, pipe or socket; wanted a file of JSON")
    path = array(tmp_path / "b")
    with open(path / ".zattrs", "wb") as file:
        file.truncate(1 << 27)
    refused(path, "b/.zattrs has 134217728 bytes; wanted a JSON object of at most")


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"dtype": [["a", "<u2"]]}, "holds the type .*; wanted numbers"),
        ({"dtype": "|O"}, "holds the type '|O'; wanted numbers"),
        ({"dtype": "<c8"}, "holds the type '<c8'; wanted numbers"),
        ({"dtype": None}, "holds the type None; wanted numbers"),
        (
            {"filters": [{"id": "delta", "dtype": "<u2"}]},
            "cannot be read as a zarr array",
        ),
        ({"compressor": {"id": "lz4"}}, 'a zarr array: .*"lz4" is not registered$'),
        ({"zarr_format": 4}, "cannot be read as a zarr array"),
        ({"order": "A"}, "cannot be read as a zarr array"),
        ({"shape": ...}, "claims shape None"),
    ],
    ids=str,
)
def test_metadata_that_are_not_understood(tmp_path, changes, problem):
    path = array(tmp_path / "a")
    edit(path, **changes)
    refused(path, problem)


def test_metadata_that_are_empty(tmp_path):
    path = array(tmp_path / "a")
    (path / ".zarray").write_text("{}")
    refused(path, "a/.zarray is empty; wanted the metadata of a zarr array")


@pytest.mark.parametrize("fill", [None, 0, 7])
def test_chunks_that_are_not_there_hold_the_fill_value(tmp_path, fill):
    path = array(tmp_path / "a")
    edit(path, fill_value=fill)
    (path / "0.0.0").unlink()
    expected = VALUES.copy()
    expected[:2, :3, :4] = fill or 0
    np.testing.assert_array_equal(open_volume(path).read(), expected)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("codec", [numcodecs.Blosc(), numcodecs.LZMA(), None])
def test_orders_and_byte_orders(tmp_path, order, codec):
    path = array(tmp_path / "a", VALUES.astype(">u2"), order=order, compressors=codec)
    if isinstance(codec, numcodecs.LZMA):
        refused(path, '"lzma" is not registered$')
        return
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)


def test_groups_name_the_arrays_inside(tmp_path):
    group = tmp_path / "a.zarr"
    zarr.open_group(str(group), mode="w", zarr_format=3)
    array(group / "seg", version=3)
    array(group / "img", version=3)
    refused(group, "is a zarr group; name an array inside it; it holds img, seg$")


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.integers()
    | st.floats()
    | st.sampled_from(["x", "zyx", "<u2", "|O", "zstd", ".", "/", "NaN", "default"])
    | st.text(max_size=3),
    lambda v: (
        st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=4), v, max_size=3)
    ),
    max_leaves=6,
)


def places(value, path=()):
    """Where in nested metadata a value can be replaced."""
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield (*path, key)
        if isinstance(value[key], dict | list):
            yield from places(value[key], (*path, key))


@pytest.mark.parametrize("version, name", [(2, ".zarray"), (3, "zarr.json")])
def test_whatever_the_metadata_say_is_read_or_refused(tmp_path, version, name):
    path = array(tmp_path / "a", version=version)
    sound = json.loads((path / name).read_text())
    sound.setdefault("dimension_names", ["x", "y", "z"])
    sound.setdefault("dimension_separator", ".")

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(list(places(sound))), JSON_VALUES)
    def check(place, value):
        metadata = copy.deepcopy(sound)
        at = metadata
        for key in place[:-1]:
            at = at[key]
        at[place[-1]] = value
        (path / name).write_text(json.dumps(metadata))
        for call in (open_volume, open_image, open_labels):
            try:
                volume = call(path)
                corner = volume.read((slice(0, 1),) * volume.rank)
            except InputError as error:
                assert "\n" not in str(error) and str(error).encode()
            else:
                assert corner.size == 1

    check()


def test_whatever_the_attributes_say_is_read_or_refused(tmp_path):
    path = array(tmp_path / "a")
    words = [
        "axes",
        "axis_order",
        "_ARRAY_DIMENSIONS",
        "multiscales",
        "ome",
        "transform",
    ]

    @settings(max_examples=60, deadline=None)
    @given(st.dictionaries(st.sampled_from(words), JSON_VALUES), st.booleans())
    def check(attributes, above):
        (path / ".zattrs").unlink(missing_ok=True)
        where = (tmp_path if above else path) / ".zattrs"
        where.write_text(json.dumps(attributes))
        try:
            volume = open_labels(path)
            repr(volume.attributes).encode()
        except InputError as error:
            assert "\n" not in str(error) and str(error).encode()
        else:
            assert sorted(volume.shape) == [5, 6, 7]

    check()
