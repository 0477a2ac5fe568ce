"""Front matter in the reference's form: written, read again, typed by hand, and refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.qc import front_matter, report

GOOD = """\
---
img: /data/seed6/data.zarr/img
out: /runs/mask.h5
low_z: 30
high_z: 2220
bg_thresh: 30
border_width: 32
---

# Affinity check report
"""


def written(tmp_path, text):
    path = tmp_path / "report.md"
    path.write_text(text)
    return path


def test_the_references_report_is_read(tmp_path):
    assert front_matter.read(written(tmp_path, GOOD)) == front_matter.FrontMatter(
        "/data/seed6/data.zarr/img", "/runs/mask.h5", 30, 2220, 30.0, 32
    )


PART = GOOD.replace(
    "width: 32\n", "width: 32\nbox: 8:16,0:4,2:6\nvolume_shape: 16,4,8\n"
)


def test_a_report_on_a_part_says_which(tmp_path):
    found = front_matter.read(written(tmp_path, PART))
    assert found.region == (Box((8, 0, 2), (16, 4, 6)), (16, 4, 8))
    path = written(tmp_path, "\n".join([*found.lines(), ""]))
    assert front_matter.read(path) == found
    assert front_matter.read(written(tmp_path, GOOD)).region is None


@pytest.mark.parametrize(
    "old, new",
    [
        ("box: 8:16,", "box: 8:17,"),
        ("box: 8:16,0:4,2:6\n", ""),
        ("box: 8:16,0:4,2:6", "box: all"),
        ("16,4,8", "16,4"),
    ],
)
def test_a_part_that_is_none_is_refused(tmp_path, old, new):
    with pytest.raises(InputError, match=r"report.md: box is '.*wanted x0:x1,y0:y1,z0"):
        front_matter.read(written(tmp_path, PART.replace(old, new)))


def test_a_report_edited_by_hand_is_read(tmp_path):
    text = """
---
# my own cuts
low_z: 0
high_z: 0x10
border_width: 0   # no ring
bg_thresh: 12.5
out: "a mask: new.h5"
img:
---
"""
    assert front_matter.read(written(tmp_path, text)) == front_matter.FrontMatter(
        "", "a mask: new.h5", 0, 16, 12.5, 0
    )


@pytest.mark.parametrize(
    "old, new, text",
    [
        (
            "low_z: 30",
            "low_zz: 30",
            "line 4: 'low_zz' is not a key; wanted img, out, low",
        ),
        ("low_z: 30\n", "", "lines 1 to 7: the front matter lacks low_z"),
        (
            "low_z: 30",
            "low_z: thirty",
            "line 4: low_z is 'thirty'; wanted a whole number",
        ),
        ("high_z: 2220", "high_z: 2220.5", "line 5: high_z is 2220.5; wanted a whole"),
        ("low_z: 30", "low_z: yes", "line 4: low_z is True; wanted a whole number"),
        ("low_z: 30", "low_z: -1", "line 4: low_z is -1; wanted 0 or more"),
        ("bg_thresh: 30", "bg_thresh:", "line 6: bg_thresh is None; wanted a number"),
        ("out: /runs/mask.h5", "out: 3", "line 3: out is 3; wanted a path"),
        ("high_z: 2220", "high_z: 29", "line 5: high_z 29 is below low_z 30"),
        ("high_z: 2220", "low_z: 2220", "line 5: low_z is there a second time"),
        ("high_z: 2220", "high_z: [1", "line 6: "),
        ("low_z: 30", "low_z 30", "line 5: |line 4: "),
        ("---\nimg", "img", "has no front matter; wanted the keys img, out"),
        ("low_z: 30", "low_z: !!python/object:os.system x", "line 4: "),
        (
            "high_z: 2220",
            "high_z: 99999999999999",
            "line 5: high_z is 9.*at most 21474",
        ),
        (
            "bg_thresh: 30",
            "bg_thresh: .nan",
            "line 6: bg_thresh is nan; wanted a finite",
        ),
        ("low_z: 30", "low_z: 2001-99-99", "cannot be read .'month must be in 1..12'"),
        (
            "low_z: 30",
            "low_z: " + "[" * 3000,
            "cannot be read .'maximum recu",
        ),
        (
            "/runs/mask.h5",
            '"a\\0b"',
            "line 3: out is 'a.*b'; wanted a path of printable",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, old, new, text):
    assert old in GOOD
    with pytest.raises(InputError, match=text):
        front_matter.read(written(tmp_path, GOOD.replace(old, new, 1)))


def test_aliases_that_stand_for_millions_of_items_give_one_short_line(tmp_path):
    rows = ["out: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i, key in enumerate(("img", "high_z", "bg_thresh", "border_width", "low_z")):
        rows.append(f"{key}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]")
    text = "\n".join(["---", *rows, "---", ""])
    with pytest.raises(InputError, match="line 3: an alias") as caught:
        front_matter.read(written(tmp_path, text))
    assert len(str(caught.value)) < 300


def test_a_file_from_another_editor_is_read(tmp_path):
    path = tmp_path / "report.md"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert front_matter.read(path).high_z == 2220


def test_a_file_that_is_no_report_is_not_taken_in(tmp_path, monkeypatch):
    monkeypatch.setattr(front_matter, "_MOST_BYTES", 10)
    with pytest.raises(InputError, match="bytes; wanted a report of --mode=qc"):
        front_matter.read(written(tmp_path, GOOD))


def test_a_missing_report_is_refused(tmp_path):
    with pytest.raises(InputError, match="no report at .*run --mode=qc"):
        front_matter.read(tmp_path / "nothing.md")


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
)
def test_any_path_comes_back(name):
    line = front_matter._line("img", name)
    assert front_matter.yaml.safe_load(line) == {"img": name} and "\n" not in line


def test_ranges_are_short():
    assert report._ranges((3, 7, 8, 9, 12)) == "3, 7-9, 12"
    assert report._ranges(tuple(range(0, 100, 2))).endswith(", 38 and 30 more")
