"""Addresses as text: what is one, and what may not stand in it."""

import pathlib

import pytest

from nisbjax import artifacts
from nisbjax.errors import InputError
from nisbjax.keys import ranges
from nisbjax.store import address, places


def test_an_address_is_known_by_its_first_letters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert address.is_address("s3://bucket/em.zarr")
    assert address.is_address(pathlib.Path("gs://bucket/em"))  # has a slash less by now
    assert not address.is_address("data/em.zarr")
    assert not address.is_address("/data/s3://em")
    (tmp_path / "em:").mkdir()
    assert not address.is_address("em:/a")


def test_paths_below_a_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert address.join("s3://b/nisb/", "val/seg") == "s3://b/nisb/val/seg"
    assert address.join(pathlib.Path("s3://b/nisb"), "seg") == "s3://b/nisb/seg"
    assert address.join("data", "https://h/em") == "https://h/em"
    assert address.join("data", "em.h5") == "data/em.h5"
    assert address.join("", "em.h5") == "em.h5"
    assert address.absolute(pathlib.Path("s3://b/em")) == "s3://b/em"
    assert address.absolute("em") == str(tmp_path / "em")


def test_what_may_not_stand_in_an_address_is_refused():
    for text, line in (
        (
            "ftp://h/em",
            "ftp://h/em is none of the addresses that are read, s3:// gs://",
        ),
        ("s3://b/a.zarr/*", "is a pattern, and one volume is wanted here; name it"),
        ("http://h/em.h5/raw", "http://h/em.h5 is a single file, .* download it"),
        ("http://h/em.tif", "http://h/em.tif is a single file"),
    ):
        with pytest.raises(InputError, match=line):
            places.place_of(text)


@pytest.mark.parametrize(
    "text", ["https://me:secret@h/em", "https://h/em?signature=secret"]
)
def test_a_password_is_refused_and_not_repeated(text):
    with pytest.raises(InputError, match="would stand in logs and files") as caught:
        places.place_of(text)
    assert "secret" not in str(caught.value)


def test_other_outputs_than_those_of_convert_stay_here():
    with pytest.raises(
        InputError, match="s3://b/seg.zarr is not a local path, and only"
    ):
        address.local_path("s3://b/seg.zarr")
    with pytest.raises(
        InputError, match="is an address, where only --mode=convert writes; na"
    ):
        artifacts.folder_of(pathlib.Path("s3://b/raw.zarr"))
    for key in ("predict.output", "decode.output"):
        with pytest.raises(
            InputError, match=f"{key} is 's3://b/o.zarr'; .* no address"
        ):
            ranges.check_flat({key: "s3://b/o.zarr"})
