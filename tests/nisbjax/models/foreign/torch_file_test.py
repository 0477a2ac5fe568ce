"""Checkpoints written by hand as torch writes them, whole, damaged and hostile."""

import json
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from nisbjax.errors import InputError
from nisbjax.models.foreign import torch_file
from nisbjax.models.foreign.torch_file import Inert
from nisbjax.models.foreign.torch_import import open_foreign, read_state_dict

# Pickle's opcodes by hand: ( mark, t tuple, } dict, s set item, V text, I number,
# c global, Q persistent id, R call, b build, . stop.


def text(value):
    return b"V" + value.encode() + b"\n"


def numbers(values):
    return b"(" + b"".join(b"I%d\n" % n for n in values) + b"t"


def tensor(key, count, size, stride, offset=0, kind="FloatStorage"):
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n"
    storage += text(key) + text("cpu") + b"I%d\n" % count + b"tQ"
    arguments = b"(" + storage + b"I%d\n" % offset + numbers(size) + numbers(stride)
    arguments += b"I00\n" + b"ccollections\nOrderedDict\n)R" + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def mapping(entries, empty=b"}"):
    items = b"".join(text(name) + value + b"s" for name, value in entries.items())
    return empty + items


def ordered(entries):
    return mapping(entries, b"ccollections\nOrderedDict\n)R")


DEFAULTDICT = b"ccollections\ndefaultdict\n(c__builtin__\nfloat\ntR"
NAMESPACE = b"cargparse\nNamespace\n)R" + mapping({"size": b"I3\n"}) + b"b"
PATH = b"cpathlib\nPosixPath\n(" + text("a") + text("b") + b"tR"
SCALAR = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(" + text("f8") + b"tR"
SCALAR += text("0" * 8) + b"tR"


def write(path, content, storages, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("archive/byteorder", b"little")
        for key, values in storages.items():
            archive.writestr(f"archive/data/{key}", np.asarray(values).tobytes())
    return path


SIX = {"0": np.arange(6, dtype=np.float32), "1": np.full(2, 7, np.float32)}
RAW = ordered({"model.w": tensor("0", 6, (2, 3), (3, 1))})
EMA = mapping({"ema_state": ordered({"model.w": tensor("1", 2, (2,), (1,))})})


def test_lightning_file_with_what_else_it_holds(tmp_path):
    content = mapping(
        {
            "epoch": b"I3\n",
            "global_step": b"I50000\n",
            "best_thr_so_far": DEFAULTDICT,
            "hyper_parameters": mapping({"a": NAMESPACE, "b": PATH, "c": SCALAR}),
            "state_dict": RAW,
        }
    )
    path = write(tmp_path / "x.ckpt", content, SIX)
    state = read_state_dict(path)
    assert list(state) == ["model.w"]
    np.testing.assert_array_equal(state["model.w"], [[0, 1, 2], [3, 4, 5]])
    assert open_foreign(path).step == 50_000
    assert list(open_foreign(path).weights) == ["raw"]


def test_averaged_weights_are_preferred_and_can_be_asked_for(tmp_path):
    both = mapping(
        {"state_dict": RAW, "callbacks": mapping({"EMAWeightsCallback{}": EMA})}
    )
    path = write(tmp_path / "x.ckpt", both, SIX)
    np.testing.assert_array_equal(read_state_dict(path)["model.w"], [7, 7])
    np.testing.assert_array_equal(read_state_dict(path, "ema")["model.w"], [7, 7])
    assert read_state_dict(path, "raw")["model.w"].shape == (2, 3)
    raw = write(tmp_path / "y.ckpt", mapping({"state_dict": RAW}), SIX)
    assert read_state_dict(raw)["model.w"].shape == (2, 3)
    with pytest.raises(InputError, match=r"has no ema weights \(it has raw\)"):
        read_state_dict(raw, "ema")
    with pytest.raises(InputError, match=r"weights 'best' is not one of"):
        read_state_dict(raw, "best")


def test_the_average_of_lightning_and_the_network_it_is_of(tmp_path):
    """WeightAveraging saves the average as state_dict, the network beside it."""
    average = ordered({"model.w": tensor("1", 2, (2,), (1,))})
    both = {"state_dict": average, "current_model_state": RAW}
    path = write(tmp_path / "x.ckpt", mapping(both), SIX)
    assert sorted(open_foreign(path).weights) == ["ema", "raw"]
    np.testing.assert_array_equal(read_state_dict(path, "ema")["model.w"], [7, 7])
    assert read_state_dict(path, "raw")["model.w"].shape == (2, 3)
    callbacks = mapping({"EMAWeightsCallback{}": EMA})
    path = write(tmp_path / "y.ckpt", mapping(both | {"callbacks": callbacks}), SIX)
    refuse(path, "has two averages, of WeightAveraging and of EMAWeightsCallback")
    # A file of which the average was taken out has the network alone.
    path = write(tmp_path / "z.ckpt", mapping({"current_model_state": RAW}), SIX)
    assert list(open_foreign(path).weights) == ["raw"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (5, "invalid type: integer `5`, expected struct TensorInfo"),
        ({"dtype": "F32", "shape": [6]}, "missing field `data_offsets`"),
        ({"dtype": "X", "shape": [6], "data_offsets": [0, 24]}, "unknown variant `X`"),
        ({"dtype": "F32", "shape": 6, "data_offsets": [0, 24]}, "expected a sequence"),
        ({"dtype": "F32", "shape": ["6"], "data_offsets": [0, 24]}, 'string "6"'),
        (
            {"dtype": "F32", "shape": [5], "data_offsets": [0, 24]},
            "invalid shape, data",
        ),
        ({"dtype": "F32", "shape": [6], "data_offsets": [4, 28]}, "invalid offset for"),
        (
            {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 24]},
            "overflow",
        ),
        ({"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}, "not fully covered"),
        # These lie in the file as they should, and are none of ours.
        (
            {"dtype": "F8_E4M3", "shape": [24], "data_offsets": [0, 24]},
            "holds all of w: it has values of type F8_E4M3",
        ),
        (
            {"dtype": "F32", "shape": [6] + [1] * 70, "data_offsets": [0, 24]},
            "holds all of w: maximum supported dimension",
        ),
    ],
)
def test_headers_of_safetensors_with_anything_in_them(tmp_path, entry, said):
    path = write_safetensors(tmp_path / "x.safetensors", {"w": entry}, bytes(24))
    refuse(path, said)


@pytest.mark.parametrize("header", [b"5", b"[" * 10_000, b"{", b"\xb5", b"null"])
def test_headers_of_safetensors_that_are_none(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    refuse(path, "is not a safetensors file: Error while deserializing header: invalid")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "header too small"),
        ((1 << 40).to_bytes(8, "little") + bytes(99), "header too large"),
        ((100).to_bytes(8, "little") + b"{}", "invalid header length"),
    ],
)
def test_safetensors_whose_header_is_not_there(tmp_path, content, said):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    refuse(path, f"is not a safetensors file: .*{said}")


def test_plain_state_dict_strides_offsets_and_kinds(tmp_path):
    content = ordered(
        {
            "turned": tensor("0", 6, (3, 2), (1, 3)),
            "last": tensor("0", 6, (2,), (1,), offset=4),
            "scalar": tensor("0", 6, (), (), offset=5),
            "half": tensor("2", 2, (2,), (1,), kind="HalfStorage"),
            "brain": tensor("3", 2, (2,), (1,), kind="BFloat16Storage"),
        }
    )
    # bfloat16 is the upper half of a float32: 0x3f80 is 1, 0xc000 is -2.
    storages = SIX | {
        "2": np.array([1, 0.5], np.float16),
        "3": np.array([0x3F80, 0xC000], np.uint16),
    }
    state = read_state_dict(write(tmp_path / "x.pt", content, storages))
    np.testing.assert_array_equal(state["turned"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(state["last"], [4, 5])
    assert state["scalar"] == 5
    np.testing.assert_array_equal(state["half"], [1, 0.5])
    assert state["brain"].dtype == np.float32
    np.testing.assert_array_equal(state["brain"], [1, -2])


@pytest.mark.parametrize(
    "payload",
    [
        b"cos\nsystem\n(" + text("touch {mark}") + b"tR",
        b"cbuiltins\neval\n(" + text("open('{mark}', 'w')") + b"tR",
        b"(cos\nsystem\n" + text("touch {mark}") + b"o",
        b"(" + text("touch {mark}") + b"ios\nsystem\n",
        b"cos\nsystem\n" + text("touch {mark}") + b"\x85\x81",
        b"cos\nsystem\n}" + text("__setstate__") + b"cos\nsystem\nsb",
    ],
)
def test_a_payload_does_not_run(tmp_path, payload):
    mark = tmp_path / "mark"
    payload = payload.replace(b"{mark}", str(mark).encode())
    content = mapping({"evil": payload, "state_dict": RAW})
    path = write(tmp_path / "x.ckpt", content, SIX)
    try:
        state = read_state_dict(path)
    except InputError:
        state = {"model.w": None}
    assert list(state) == ["model.w"]
    assert not mark.exists()


def test_a_tensor_whose_reading_was_replaced(tmp_path):
    # BUILD with a dict writes into the instance: read = os.system.
    changed = (
        tensor("0", 6, (2, 3), (3, 1)) + mapping({"read": b"cos\nsystem\n"}) + b"b"
    )
    path = write(tmp_path / "x.ckpt", ordered({"w": changed}), SIX)
    refuse(path, "holds all of w: it is no tensor")


def test_inert_objects_stay_inert():
    thing = Inert(1, a=2)
    thing.__setstate__({"x": 1})
    thing.append(1)
    thing.extend([1])
    thing.add(1)
    assert isinstance(thing(3), Inert)
    assert len(thing) == 0 and len({thing: 1}) == 1


def refuse(path, message):
    with pytest.raises(InputError, match=message):
        read_state_dict(path)


def test_damaged_files_are_refused(tmp_path):
    good = write(tmp_path / "x.ckpt", mapping({"state_dict": RAW}), SIX)
    content = good.read_bytes()
    torn = tmp_path / "torn.ckpt"
    for size in range(0, len(content), 37):
        torn.write_bytes(content[:size])
        refuse(torn, "is not a torch checkpoint .*; copy or export it again")
    short = write(tmp_path / "short.ckpt", RAW, {"0": np.zeros(3, np.float32)})
    refuse(short, "holds all of model.w: a tensor that is larger than its storage")
    refuse(tmp_path / "none.ckpt", "is no file")


def test_bombs_are_refused(tmp_path):
    zeros = {"0": np.zeros(1 << 20, np.float32)}
    packed = write(tmp_path / "x.ckpt", RAW, zeros, zipfile.ZIP_DEFLATED)
    refuse(packed, "compressed entries, which torch never writes")
    repeated = ordered({"w": tensor("0", 6, (1 << 40,), (0,))})
    refuse(write(tmp_path / "y.ckpt", repeated, SIX), "larger than its storage")
    negative = ordered({"w": tensor("0", 6, (2,), (-1,), offset=3)})
    refuse(write(tmp_path / "z.ckpt", negative, SIX), "impossible shape")
    # A memo index of 2^32 - 1: a memo kept as an array would take 32 GB.
    memo = mapping({"a": b"Nr\xff\xff\xff\xff", "state_dict": RAW})
    assert read_state_dict(write(tmp_path / "m.ckpt", memo, SIX))["model.w"].size == 6


DOUBLED = b"N" + b"q\x00h\x00\x86" * 60  # (x, x) of (x, x) ...: 2^60 to visit
NESTED = b"N" + b"\x85" * 300_000  # a tuple in a tuple: as deep to hash


@pytest.mark.parametrize("key", [DOUBLED, NESTED], ids=["doubled", "nested"])
@pytest.mark.parametrize(
    "holder",
    [
        b"}%bNs",
        b"(%bNd",
        b"ccollections\nOrderedDict\n)R%bNs",
        b"\x8f(%b\x90",  # a set
        b"(%b\x91",  # a frozen set
    ],
    ids=["set item", "dict", "ordered", "set", "frozen set"],
)
def test_tuples_that_cannot_be_hashed_are_not(tmp_path, holder, key):
    content = {"hyper_parameters": holder % key, "callbacks": b"}%bNs" % key}
    path = write(tmp_path / "x.ckpt", mapping(content | {"state_dict": RAW}), SIX)
    assert list(read_state_dict(path)) == ["model.w"]


def test_entries_under_numbers_are_dropped():
    """Multiples of Python's modulus of hashes all have the hash 0."""
    found = torch_file.Entries()
    for i in range(3):
        found[i * (2**61 - 1)] = i
    found["a"] = 5
    assert found == {"a": 5}


def test_arrays_of_no_numbers_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(3, [("x", "f4")]), b=np.array(["text"]))
    for name, weights in torch_file.read_npz(path).items():
        with pytest.raises(InputError, match="it has values of type"):
            torch_file.read_array(path, name, weights)


def test_numbers_that_no_training_reaches(tmp_path):
    huge = b"\x8b" + (2000).to_bytes(4, "little") + b"\x7f" * 2000  # 16,000 bits
    content = {"global_step": huge, "callbacks": b"}" + huge + b"Ns"}
    path = write(tmp_path / "x.ckpt", mapping(content | {"state_dict": RAW}), SIX)
    assert open_foreign(path).step == 0


def test_file_without_weights_is_refused(tmp_path):
    path = write(tmp_path / "x.ckpt", mapping({"epoch": b"I3\n"}), {})
    refuse(path, r"has no raw weights")


def write_safetensors(path, header, body):
    header = json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)
    return path


def test_safetensors_and_npz(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    header = {"__metadata__": {"a": "b"}, "w": entry}
    path = write_safetensors(tmp_path / "x.safetensors", header, values.tobytes())
    np.testing.assert_array_equal(read_state_dict(path)["w"], values)
    np.savez(tmp_path / "x.npz", w=values)
    np.testing.assert_array_equal(read_state_dict(tmp_path / "x.npz")["w"], values)
    with pytest.raises(InputError, match=r"has no ema weights \(it has raw\)"):
        read_state_dict(path, "ema")
    for offsets in ([0, 20], [4, 28], [-4, 20]):
        header["w"]["data_offsets"] = offsets
        refuse(
            write_safetensors(tmp_path / "y.safetensors", header, values.tobytes()),
            "is not a safetensors file: Error while deserializing header: invalid",
        )
    np.savez_compressed(tmp_path / "z.npz", w=values)
    np.testing.assert_array_equal(read_state_dict(tmp_path / "z.npz")["w"], values)
    np.savez_compressed(tmp_path / "bomb.npz", w=np.zeros(1 << 20, np.float32))
    refuse(tmp_path / "bomb.npz", r"entries that unpack to 4194\d+ bytes")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-40])
    refuse(tmp_path / "torn.npz", "is not an npz file of plain arrays")
    np.savez(tmp_path / "y.npz", w=np.array([{}], object))
    refuse(tmp_path / "y.npz", "of w: Object arrays cannot be loaded")


def test_safetensors_as_the_library_writes_them(tmp_path):
    weights = {"a": np.eye(3, dtype=np.float32), "b": np.arange(4)}
    weights["c"] = np.array([1, -2], ml_dtypes.bfloat16)
    save_file(weights, tmp_path / "x.safetensors")
    state = read_state_dict(tmp_path / "x.safetensors")
    assert state.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(state[name], value)
