"""The QC report: what the mask builder reads on top, what a person reads below.

The front matter holds `img, out, low_z, high_z, bg_thresh, border_width` in this order and
the sections follow PyTC's report (`decoding/qc/affinity.py`), so either program builds a
mask from the other's report, also from one edited by hand. Ours adds plots, says where the
search of the cuts was saturated, and prints the reference's figures beside.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from nisbjax.errors import InputError
from nisbjax.qc.cuts import Cuts
from nisbjax.qc.statistics import Statistics

KEYS = ("img", "out", "low_z", "high_z", "bg_thresh", "border_width")
_CHANNEL_NAMES = "xyz"
_FEW = 100  # background voxels in the ring below which a row says nothing


@dataclasses.dataclass(frozen=True)
class FrontMatter:
    """What a mask is built from.

    Attributes:
      img: path of the source image; "" for none.
      out: path of the mask to be written.
      low_z, high_z: planes low_z <= z < high_z are kept.
      bg_thresh: intensity at or below which a voxel of the border ring is masked.
      border_width: of the ring, in voxels.
    """

    img: str
    out: str
    low_z: int
    high_z: int
    bg_thresh: float
    border_width: int


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a report is about, for its lines.

    Attributes:
      prediction: path.
      shape: c x y z.
      dtype: of the values.
      image: path; "" for none.
      plots: names of PNG files beside the report.
    """

    prediction: str
    shape: tuple[int, ...]
    dtype: str
    image: str
    plots: tuple[str, ...] = ()


def write(
    path: str | os.PathLike,
    front: FrontMatter,
    subject: Subject,
    statistics: Statistics,
    cuts: Cuts,
    settings: Mapping[str, Any],
) -> None:
    """Writes a report, renamed into place.

    Args:
      path: of the Markdown file.
      front: for the mask builder.
      subject: what was looked at.
      statistics: of all planes.
      cuts: derived from them.
      settings: z_stride, refine_window, drift_thresh and auto_extend of the cuts.
    """
    values = dataclasses.asdict(front) | {"img": front.img or None}
    lines = ["---", *(_yaml_line(key, values[key]) for key in KEYS), "---", ""]
    lines += ["# Affinity check report", ""]
    shape = " x ".join(map(str, subject.shape))
    lines += [f"- pred: `{subject.prediction}` ({shape}, {subject.dtype})"]
    lines += [f"- img: `{subject.image}`" if subject.image else "- img: none", ""]
    lines += _health(statistics, cuts)
    lines += _z_cuts(cuts, subject.shape[3], settings)
    lines += _border(front, statistics)
    if subject.plots:
        lines += ["## Plots", ""]
        lines += [f"![{name}]({name})\n" for name in subject.plots]
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text("\n".join(lines))
    os.replace(temporary, path)


def _yaml_line(key: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return yaml.safe_dump({key: value}, width=10**6, allow_unicode=True).rstrip()


def channel_name(channel: int) -> str:
    """x, y, z of the short-range affinities; the number of any other channel."""
    return _CHANNEL_NAMES[channel] if channel < 3 else str(channel)


def _health(statistics: Statistics, cuts: Cuts) -> list[str]:
    planes = statistics.planes
    at = list(cuts.sampled)
    voxels = statistics.shape[0] * statistics.shape[1]
    lines = ["## Volume health", ""]
    lines += [
        (
            f"- voxels: {voxels * statistics.shape[2]:,} in each channel, all of them read; "
            f"{voxels * len(at):,} in the {len(at)} sampled planes"
        ),
        (
            f"- NaN: {int(planes.nan.sum()):,}, Inf: {int(planes.inf.sum()):,} (left out of "
            "all figures below)"
        ),
        "",
        "| channel | mean | std | min | max |",
        "| --- | --- | --- | --- | --- |",
    ]
    means = []
    for c in range(planes.count.shape[0]):
        count = planes.count[c, at].sum()
        mean = planes.total[c, at].sum() / count if count else np.nan
        variance = planes.squares[c, at].sum() / count - mean**2 if count else np.nan
        means.append(mean)
        lines.append(
            f"| {channel_name(c)} | {mean:.4f} | {np.sqrt(max(variance, 0)):.4f} | "
            f"{planes.low[c, at].min():.4f} | {planes.high[c, at].max():.4f} |"
        )
    spread = max(means) - min(means)
    verdict = "OK" if spread < 0.05 else "imbalanced"
    return [*lines, "", f"- channel-mean spread: {spread:.4f} ({verdict})", ""]


def _z_cuts(cuts: Cuts, depth: int, settings: Mapping[str, Any]) -> list[str]:
    lines = [f"## Derived Z cuts (drift_thresh={settings['drift_thresh']:g})", ""]
    lines += ["| channel | interior mean | cutoff |", "| --- | --- | --- |"]
    for c, (mean, cutoff) in enumerate(
        zip(cuts.interior_mean, cuts.cutoff, strict=True)
    ):
        lines.append(f"| {channel_name(c)} | {mean:.4f} | {cutoff:.4f} |")
    window = settings["refine_window"]
    lines += ["", f"- low_z: {cuts.low_z}, high_z: {cuts.high_z} of {depth} planes"]
    for end, saturated in (("low", cuts.saturated_low), ("high", cuts.saturated_high)):
        if saturated:
            lines.append(
                f"- {end}_z **saturated**: none of the {'first' if end == 'low' else 'last'} "
                f"{window} planes passes; "
                + (
                    "the search went on until one did"
                    if settings["auto_extend"]
                    else "the true bad range is unknown (qc.auto_extend searches on)"
                )
            )
    lines.append(
        f"- the reference's search of {window} planes at each end says low_z "
        f"{cuts.reference_low_z}, high_z {cuts.reference_high_z}"
    )
    if not cuts.usable:
        lines.append("- **no plane passes in all channels**: nothing would be kept")
    if cuts.bad_inside:
        lines.append(
            f"- {len(cuts.bad_inside)} planes between the cuts do not pass and are kept: "
            + _ranges(cuts.bad_inside)
        )
    return [*lines, ""]


def _ranges(planes: tuple[int, ...], most: int = 20) -> str:
    """`3, 7-9, 12`; at most so many pieces."""
    pieces: list[list[int]] = []
    for z in planes:
        if pieces and pieces[-1][1] == z - 1:
            pieces[-1][1] = z
        else:
            pieces.append([z, z])
    text = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in pieces[:most])
    return text + (f" and {len(pieces) - most} more" if len(pieces) > most else "")


def _border(front: FrontMatter, statistics: Statistics) -> list[str]:
    lines = [
        (
            f"## XY-border + intensity (border_width={front.border_width}, "
            f"bg_thresh={front.bg_thresh:g})"
        ),
        "",
    ]
    border, samples = statistics.border, statistics.samples
    if border is None or samples is None:
        return [*lines, "WARN: no image of the prediction's shape; skipped", ""]
    lines += ["```", "    z  ch  ring bg n  ring mean  ring q95  ring >.5  inside mean"]
    for row, z in enumerate(border.z):
        for c in range(samples.inside_total.shape[1]):
            ring = samples.ring[row][c]
            head = f"{z:5d}  {channel_name(c):>2}  {ring.total:9d}"
            if ring.total < _FEW:
                lines.append(f"{head}  too few")
                continue
            lines.append(
                f"{head}  {ring.mean:9.4f}  {ring.quantile(0.95):8.4f}  "
                f"{ring.share_above(0.5):8.4f}  {samples.inside_mean(row, c):11.4f}"
            )
    return [*lines, "```", ""]


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
    lines = path.read_text(errors="replace").splitlines()
    fences = [i for i, line in enumerate(lines) if line.rstrip() == "---"]
    if len(fences) < 2 or any(line.strip() for line in lines[: fences[0]]):
        raise InputError(
            f"{path} has no front matter; wanted the keys {', '.join(KEYS)} between two "
            "lines of --- at its top"
        )
    first, last = fences[:2]
    found = _nodes(path, "\n".join(lines[first + 1 : last]), first + 2)
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
    }
    for key, (value, line) in found.items():
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            wanted = "a path" if str in kinds[key] else "a number"
            wanted = "a whole number" if kinds[key] == (int,) else wanted
            raise InputError(
                f"{path}, line {line}: {key} is {value!r}; wanted {wanted}"
            )
        if key.endswith(("_z", "width")) and value < 0:
            raise InputError(f"{path}, line {line}: {key} is {value}; wanted 0 or more")
    values = {key: value for key, (value, _) in found.items()}
    if values["low_z"] > values["high_z"]:
        raise InputError(
            f"{path}, line {found['high_z'][1]}: high_z {values['high_z']} is below low_z "
            f"{values['low_z']}; wanted low_z <= high_z"
        )
    values["bg_thresh"] = float(values["bg_thresh"])
    values["img"] = values["img"] or ""
    return FrontMatter(**values)


def _nodes(path: pathlib.Path, text: str, line: int) -> dict[str, tuple[Any, int]]:
    """Values of a YAML mapping with the lines of the file in which they stand."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = line + mark.line if mark is not None else line
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise InputError(f"{path}, line {at}: {problem}") from None
    if not isinstance(root, yaml.MappingNode) or not isinstance(loaded, dict):
        raise InputError(
            f"{path}, line {line}: the front matter is no list of keys; wanted `key: value`"
        )
    found: dict[str, tuple[Any, int]] = {}
    for key_node, _ in root.value:
        key, at = key_node.value, line + key_node.start_mark.line
        if key not in KEYS:
            raise InputError(
                f"{path}, line {at}: {key!r} is not a key; wanted {', '.join(KEYS)}"
            )
        if key in found:
            raise InputError(f"{path}, line {at}: {key} is there a second time")
        found[key] = loaded[key], at
    return found
