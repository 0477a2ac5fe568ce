"""What lies where an artifact is to be written."""

import pytest

from nisbjax.errors import InputError
from nisbjax.store import remains


def test_chunks_without_an_array_are_removed(tmp_path, caplog):
    artifact = tmp_path / "a.zarr"
    artifact.mkdir()
    (artifact / "0.0.1").touch()
    remains.require_own(artifact)
    remains.remove_remains(artifact)
    assert artifact.is_dir() and not list(artifact.iterdir())
    assert "a.zarr holds chunks without an array" in caplog.text


@pytest.mark.parametrize("names", [(".zarray", "0.0.1"), ("notes.txt",)])
def test_data_of_others_stay(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="was not written by this stage: it has no"):
        remains.require_own(tmp_path)
    remains.remove_remains(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(names)


def test_metadata_alone_are_no_data(tmp_path):
    (tmp_path / ".zarray").touch()
    remains.require_own(tmp_path)
    remains.require_own(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"\.zarray is a file, and a folder is to be"):
        remains.require_own(tmp_path / ".zarray")
