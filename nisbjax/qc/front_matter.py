"""The top of a QC report, `img, out, low_z, high_z, bg_thresh, border_width`, as YAML.

What PyTC's mask builder reads (`build_affinity_mask`), written by its report, by ours, or
by hand. PyTC takes what it finds; here whatever cannot be used is named with its line. A
report on a part of an image has `box` and `volume_shape` besides, in voxels of the image.
"""

import dataclasses
import os
import pathlib
import reprlib
from typing import Any

import yaml

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import files, records
from nisbjax.typing import Triple

KEYS = ("img", "out", "low_z", "high_z", "bg_thresh", "border_width")
_OF_A_PART = ("box", "volume_shape")
_MOST_BYTES = 10_000_000  # of a report
_MOST_CHARACTERS = 100_000  # of its front matter: paths are the longest
_LARGEST = 2**31 - 1  # of voxels and intensities


@dataclasses.dataclass(frozen=True)
class FrontMatter:
    """What a mask is built from.

    Attributes:
      img: path of the source image; "" for none.
      out: path of the mask to be written.
      low_z, high_z: planes low_z <= z < high_z are kept; of a part its own, from 0.
      bg_thresh: intensity at or below which a voxel of the border ring is masked.
      border_width: of the ring, in voxels.
      box: of a part of the image, as text; "" for all of it.
      volume_shape: of that image, `x,y,z`; "" where it is not known.
    """

    img: str
    out: str
    low_z: int
    high_z: int
    bg_thresh: float
    border_width: int
    box: str = ""
    volume_shape: str = ""

    def lines(self) -> list[str]:
        """As they stand at the top of a report."""
        values = dataclasses.asdict(self) | {"img": self.img or None}
        part = [key for key in _OF_A_PART if values[key]]
        return ["---", *(_line(key, values[key]) for key in (*KEYS, *part)), "---"]

    @property
    def region(self) -> tuple[Box, Triple] | None:
        """The part of the image, and the image's shape; None for all of it."""
        if not self.box:
            return None
        x, y, z = map(int, self.volume_shape.split(","))
        return Box.parse(self.box), (x, y, z)


def _line(key: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return yaml.safe_dump({key: value}, width=10**6, allow_unicode=True).rstrip()


def read(path: str | os.PathLike) -> FrontMatter:
    """The front matter of a report: ours, the reference's, or typed by hand.

    Raises:
      InputError: no such file, no front matter, or keys that are unknown, missing, twice
        there or of a wrong type, each named with its line.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(
            f"no report at {path}; run --mode=qc, or name it with --config.mask.report"
        )
    try:
        content = files.read_bytes(path, _MOST_BYTES)
    except InputError as error:
        raise InputError(f"{error}; wanted a report of --mode=qc") from None
    lines = content.decode("utf-8-sig", errors="replace").splitlines()
    fences = [i for i, line in enumerate(lines) if line.rstrip() == "---"]
    if len(fences) < 2 or any(line.strip() for line in lines[: fences[0]]):
        raise InputError(
            f"{path} has no front matter; wanted the keys {', '.join(KEYS)} between two "
            "lines of --- at its top"
        )
    first, last = fences[:2]
    top = "\n".join(lines[first + 1 : last])
    if len(top) > _MOST_CHARACTERS:
        raise InputError(
            f"{path} has {len(top)} characters of front matter; wanted the keys "
            f"{', '.join(KEYS)}"
        )
    found = _nodes(path, top, first + 2)
    missing = [key for key in KEYS if key not in found]
    if missing:
        raise InputError(
            f"{path}, lines {first + 1} to {last + 1}: the front matter lacks "
            f"{', '.join(missing)}"
        )
    kinds: dict[str, tuple[type, ...]] = {
        "img": (str, type(None)),
        "out": (str,),
        "low_z": (int,),
        "high_z": (int,),
        "bg_thresh": (int, float),
        "border_width": (int,),
        "box": (str,),
        "volume_shape": (str,),
    }
    for key, (value, line) in found.items():
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            wanted = "a path" if str in kinds[key] else "a number"
            wanted = "text" if key in _OF_A_PART else wanted
            wanted = "a whole number" if kinds[key] == (int,) else wanted
            raise InputError(
                f"{path}, line {line}: {key} is {reprlib.repr(value)}; wanted {wanted}"
            )
        if kinds[key] == (int,) and not 0 <= value <= _LARGEST:
            raise InputError(
                f"{path}, line {line}: {key} is {reprlib.repr(value)}; wanted 0 or more, "
                f"at most {_LARGEST}"
            )
        if key == "bg_thresh" and not abs(value) <= _LARGEST:
            raise InputError(
                f"{path}, line {line}: {key} is {reprlib.repr(value)}; wanted a finite "
                "intensity"
            )
        if isinstance(value, str) and not value.isprintable():
            raise InputError(
                f"{path}, line {line}: {key} is {reprlib.repr(value)}; wanted a path of "
                "printable characters"
            )
    values = {key: value for key, (value, _) in found.items()}
    if values["low_z"] > values["high_z"]:
        raise InputError(
            f"{path}, line {found['high_z'][1]}: high_z {values['high_z']} is below low_z "
            f"{values['low_z']}; wanted low_z <= high_z"
        )
    values["bg_thresh"] = float(values["bg_thresh"])
    values["img"] = values["img"] or ""
    front = FrontMatter(**values)
    _require_part(path, front)
    return front


def _require_part(path: pathlib.Path, front: FrontMatter) -> None:
    """Refuses a box that is not inside the image that it is said to be of."""
    if not front.box and not front.volume_shape:
        return
    try:
        found = front.region
        inside = found is not None and Box.whole(found[1]).contains(found[0])
    except (InputError, ValueError):
        inside = False
    if not inside:
        raise InputError(
            f"{path}: box is {front.box!r} and volume_shape {front.volume_shape!r}; wanted "
            "x0:x1,y0:y1,z0:z1 inside x,y,z voxels, or neither of them"
        )


def _nodes(path: pathlib.Path, text: str, line: int) -> dict[str, tuple[Any, int]]:
    """Values of a YAML mapping with the lines of the file in which they stand."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = line + mark.line if mark is not None else line
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise InputError(f"{path}, line {at}: {problem}") from None
    except (ValueError, RecursionError) as error:  # 2001-99-99, ten thousand brackets
        problem = reprlib.repr(str(error))
        raise InputError(
            f"{path}, line {line}: the front matter cannot be read ({problem}); wanted "
            "`key: value`"
        ) from None
    if not isinstance(root, yaml.MappingNode):
        raise InputError(
            f"{path}, line {line}: the front matter is no list of keys; wanted `key: value`"
        )
    found: dict[str, tuple[Any, int]] = {}
    for key_node, _ in root.value:
        key, at = key_node.value, line + key_node.start_mark.line
        if key not in (*KEYS, *_OF_A_PART):
            raise InputError(
                f"{path}, line {at}: {reprlib.repr(key)} is not a key; wanted {', '.join(KEYS)}"
            )
        if key in found:
            raise InputError(f"{path}, line {at}: {key} is there a second time")
        found[key] = None, at
    loaded = records.parse_yaml(text, str(path), first_line=line)
    return {key: (loaded[key], at) for key, (_, at) in found.items()}
