"""What was imported goes out as it came in."""

import json

import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file

from nisbjax.models.foreign import torch_export, torch_import


@pytest.mark.parametrize("kernel, heads", [(3, 1), (5, 5)])
def test_export_is_the_inverse_of_import(original_weights, kernel, heads):
    """Every name, shape and value; sides of layers differ, so that no axes are mixed."""
    weights = original_weights("S", kernel, 1, 6, heads, width=2)
    params = nnx.to_pure_dict(nnx.state(torch_import.to_model(weights)))
    found = torch_export.state_dict(params)
    assert found.pop("dummy_tensor").tolist() == [1]
    weights.pop("dummy_tensor", None)
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_the_file_is_read_by_safetensors_and_by_us(tmp_path):
    path = tmp_path / "weights.safetensors"
    arrays = {"a.weight": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}
    arrays["b"] = np.float32([7])
    torch_export.write_safetensors(path, arrays, {"step": "20"})
    for found in (load_file(path), torch_import.read_state_dict(path)):
        assert found.keys() == arrays.keys()
        for name, value in arrays.items():
            np.testing.assert_array_equal(found[name], value, strict=True)
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {"step": "20"}
    # The format: the header's length, the header, the values; all 8 bytes aligned.
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0 and len(content) == 8 + length + 4 * 7
    header = json.loads(content[8 : 8 + length])
    assert header["b"] == {"dtype": "F32", "shape": [1], "data_offsets": [24, 28]}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_same_weights_are_the_same_bytes(tmp_path):
    path = tmp_path / "weights.safetensors"
    arrays = {"b": np.float32([7]), "a": np.float32([8])}
    facts = {"step": "20", "model": "{}", "weights": "ema", "format": "pt"}
    written = set()
    for _ in range(4):  # facts came out in any of 24 orders
        torch_export.write_safetensors(path, arrays, facts)
        written.add(path.read_bytes())
    (content,) = written
    assert content.index(b'"format"') < content.index(b'"model"')
