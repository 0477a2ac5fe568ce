"""Compiled: the links between fragments in one box, counted and summed by pair.

Neighbouring voxels mostly link the same two fragments, so each row along z remembers its last
pair and the others are found in a hash table. scikit-image and `elf` build region graphs of
volumes in memory; waterz keeps a list of all faces.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Int, Int32, Integer

from nisbjax.decode.agglomeration.evidence import BINS, NOTHING
from nisbjax.decode.kernels import kernel, part
from nisbjax.typing import Labels

Around = Integer[
    np.ndarray, "around_x around_y around_z"
]  # labels of a box and beside it

LOW, HIGH, KIND, NUMBER, TOTAL = range(5)  # columns of a table

_ROOM = 1 << 12  # rows at first
_NOTHING = np.int32(NOTHING)
_BINS = np.int64(BINS)
_FACTORS = (0x1E3779B97F4A7C15, 0x2545F4914F6CDD1D, 0x165667B19E3779F9)


class Links(NamedTuple):
    """The affinities of a box, and what each channel links.

    Attributes:
      values: positions in `table`, or codes where it is empty (`evidence.codes`).
      table: of codes.
      reach: from the voxel that stores an affinity to the other one.
      kind: of the channel's links.
      bins: 1, or how many kinds the common faces have, by their affinities.
    """

    values: Integer[np.ndarray, "c x y z"]
    table: Int32[np.ndarray, " t"]
    reach: Int[np.ndarray, "c 3"]
    kind: Int[np.ndarray, " c"]
    bins: int


@no_type_check
@part
def _place(slots, rows, low, high, kind):
    """Where the hash table holds a row, or has room for it."""
    mask = slots.size - 1
    h = low * _FACTORS[0] ^ high * _FACTORS[1] ^ kind * _FACTORS[2]
    at = (h ^ (h >> 31)) & mask
    while slots[at] >= 0:
        row = slots[at]
        if rows[row, 0] == low and rows[row, 1] == high and rows[row, 2] == kind:
            break
        at = (at + 1) & mask
    return at


@no_type_check
@part
def _row(slots, rows, count, low, high, kind):
    """The row of a pair and kind, a new one where there is none."""
    at = _place(slots, rows, low, high, kind)
    if slots[at] < 0:
        slots[at] = count
        rows[count, 0], rows[count, 1], rows[count, 2] = low, high, kind
        rows[count, 3], rows[count, 4] = 0, 0
    return slots[at]


@no_type_check
@kernel
def _hash(slots, rows, count):
    """Enters the first rows into an empty hash table."""
    for row in range(count):
        at = _place(slots, rows, rows[row, 0], rows[row, 1], rows[row, 2])
        slots[at] = row


@no_type_check
@kernel
def _measure(labels, start, rows, slots, count):
    """Counts the voxels of labels; as `_link`."""
    nx, ny, nz = labels.shape
    for line in range(start, nx * ny):
        if count + nz > rows.shape[0]:
            return line, count
        x, y = line // ny, line % ny
        last, row = np.int64(0), 0
        for z in range(nz):
            own = np.int64(labels[x, y, z])
            if own == 0:
                continue
            if own != last:
                row = _row(slots, rows, count, own, own, np.int64(0))
                count += row == count
                last = own
            rows[row, 3] += 1
    return nx * ny, count


@no_type_check
@kernel
def _link(near, labels, corner, links, start, rows, slots, count):
    """Counts and sums the links that a box's affinities make, line by line along z.

    Args:
      near: labels of the voxels that store affinities.
      labels: of these and all that they reach inside of the volume.
      corner: of `near` in `labels`.
      links: see `Links`.
      start: the first of x * y * c lines.
      rows: low, high, kind, number, total; filled from `count` on.
      slots: hash table of rows, -1 = free.
      count: of rows.

    Returns:
      The line before which there is no room for more rows, or how many there are; and the
      number of rows.
    """
    nx, ny, nz = near.shape
    channels = links.kind.size
    for line in range(start, nx * ny * channels):
        if count + nz > rows.shape[0]:
            return line, count
        c = line % channels
        y = line // channels % ny
        x = line // channels // ny
        far_x = x + corner[0] + links.reach[c, 0]
        far_y = y + corner[1] + links.reach[c, 1]
        if not (0 <= far_x < labels.shape[0] and 0 <= far_y < labels.shape[1]):
            continue
        step = corner[2] + links.reach[c, 2]
        binned = links.bins > 1 and links.kind[c] == 0
        last_low, last_high, last_kind, row = np.int64(0), np.int64(0), np.int64(0), 0
        for z in range(max(0, -step), min(nz, labels.shape[2] - step)):
            a = np.int64(near[x, y, z])
            b = np.int64(labels[far_x, far_y, z + step])
            if a == b or a == 0 or b == 0:
                continue
            code = np.int32(links.values[c, x, y, z])
            if links.table.size:
                code = links.table[code]
            if code == _NOTHING:
                continue
            low, high = min(a, b), max(a, b)
            kind = links.kind[c]
            if binned:
                kind = np.int64(code) & (_BINS - 1)
            if low != last_low or high != last_high or kind != last_kind:
                row = _row(slots, rows, count, low, high, kind)
                count += row == count
                last_low, last_high, last_kind = low, high, kind
            rows[row, 3] += 1
            rows[row, 4] += np.int64(code) >> 8
    return nx * ny * channels, count


class _Table:
    """Rows that are being counted, with room for more."""

    def __init__(self):
        self.rows = np.empty((0, 5), np.int64)
        self._slots = np.empty(0, np.int32)
        self._count = 0

    def fill(self, count_lines: Callable[..., tuple[int, int]], lines: int, room: int):
        """Calls a kernel until it has seen all lines, each of at most `room` new rows."""
        line = 0
        while line < lines:
            if self._count + room > len(self.rows):
                self._grow(self._count + room)
            line, self._count = count_lines(line, self.rows, self._slots, self._count)

    def _grow(self, wanted: int) -> None:
        rows = np.empty((max(_ROOM, 2 * len(self.rows), wanted), 5), np.int64)
        rows[: self._count] = self.rows[: self._count]
        slots = np.full(1 << (2 * len(rows)).bit_length(), -1, np.int32)
        _hash(slots, rows, self._count)
        self.rows, self._slots = rows, slots

    def ascending(self) -> Int[np.ndarray, "_ 5"]:
        rows = self.rows[: self._count]
        return rows[np.lexsort((rows[:, KIND], rows[:, HIGH], rows[:, LOW]))]


def count_links(
    near: Labels, labels: Around, core: tuple[slice, slice, slice], links: Links
) -> Int[np.ndarray, "_ 5"]:
    """The sorted table of one box.

    Two fragments in a plane of 2 x 3 voxels, all logits 1, short channels alone:

        labels   3 3 7          LOW HIGH KIND NUMBER      TOTAL
                 7 7 7            3    3    0      2          0   (its voxels)
                                  3    7    0      3   3 x 2^20   (3 common faces)
                                  7    7    0      4          0

    Args:
      near: labels [x y z] of the box, 0 where a mask takes the affinities stored there.
      labels: of these voxels, and of all that the links reach inside of the volume.
      core: where the box lies in `labels`.
      links: of the box.

    Returns:
      Rows LOW, HIGH, KIND, NUMBER, TOTAL, ascending, LOW <= HIGH. A label with itself: its
      voxels. Two labels: KIND below `bins`, their common faces, with the sum of their logits
      in units of 2^-20; others, their links by one long-range channel.
    """
    corner = np.array([s.start for s in core])
    x, y, z = near.shape
    table = _Table()
    table.fill(functools.partial(_measure, labels[core]), x * y, z)
    link = functools.partial(_link, near, labels, corner, links)
    table.fill(link, x * y * len(links.kind), z)
    return table.ascending()
