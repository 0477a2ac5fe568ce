"""Bounds of a pickle, looked at before anything in it is made.

A pickle is a program for a stack machine, and a few bytes of it can stand for a key that
takes years to hash, a list of 10^12 items or a tuple of a million levels, at which Python
hangs, fills the memory or crashes. Here the program is followed with depth and size of each
object in place of the object. pickletools.dis follows the stack in the same way, as text
and some hundred times more slowly; PyTC and BANIS load pickles as they are.
"""

from typing import no_type_check

import numba
import numpy as np

from nisbjax.store import pickle_opcodes as op

DEEPEST = 64  # containers within containers; a graph has some 8
LONGEST_INTEGER = 17  # bytes; a UUID has 128 bits and a sign
_LONGEST_KEY = 9  # bytes of a whole number that is hashed: of uint64, with a sign
_MOST_DIGITS = 22  # of such a number in a line, with its sign and L
_LONGEST_LINE = 4096  # of a name; numbers of protocol 0 have fewer
_KEY_SIZE, _KEY_DEPTH = 64, 8  # of what is hashed; numpy's numbers are the largest
_SHARING = 16  # times more values than bytes, by references to earlier objects

_REASONS = {
    1: "claims more bytes than the file has",
    2: "has an unknown opcode",
    3: "stores an object under a vast number",
    4: f"is nested more than {DEEPEST} levels deep",
    5: f"has a whole number of more than {8 * LONGEST_INTEGER} bits",
    6: "has nested or long tuples, or long numbers, as keys",
    7: "stands for far more values than its size can mean",
    8: "changes a container that another one holds",
    9: "takes more from its stack than is there",
    10: "has a line that is too long for a name or a number",
}

_NEWLINE, _ZERO = 10, 48
_LONG_NUMBER = 1  # the object that stands for all of them
_BARE_CALL = 8  # values: `defaultdict(dict)` has fewer, and may be filled


def problem(data: bytes) -> str:
    """What is wrong with a pickle, such as `is nested more than 64 levels deep at byte 9`.

    Args:
      data: the pickle.

    Returns:
      "" where it keeps the bounds. (It may still be no sound pickle.)
    """
    code, at = _follow(np.frombuffer(data, np.uint8))
    return f"{_REASONS[code]} at byte {at}" if code else ""


@no_type_check
@numba.njit(cache=True, nogil=True)
def _number(data, at, size):
    value = np.int64(0)
    for i in range(size):
        if i == 7 and data[at + i] >= 64:
            return np.int64(1) << 62
        value |= np.int64(data[at + i]) << (8 * i)
    return value


@no_type_check
@numba.njit(cache=True, nogil=True)
def _grown(values):
    larger = np.zeros(2 * len(values), values.dtype)
    larger[: len(values)] = values
    return larger


@no_type_check
@numba.njit(cache=True, nogil=True)
def _lines(data, at, opcode, lines):
    """What is wrong with an argument of lines, the byte after it, and its number."""
    total, first, value = len(data), at, np.int64(0)
    longest = total
    if not op.TEXTS[opcode]:
        longest = 3 * LONGEST_INTEGER if op.NUMBERS[opcode] else _LONGEST_LINE
    for _ in range(lines):
        begin = at
        while at < total and data[at] != _NEWLINE and at - begin <= longest:
            at += 1
        if at - begin > longest:
            return 5 if op.NUMBERS[opcode] else 10, at, value
        at += 1
    if at > total:
        return 1, at, value
    if opcode == op.PUT_LINE or opcode == op.GET_LINE:
        if at - first > 12:
            return 3, at, value
        for i in range(first, at - 1):
            if data[i] < _ZERO or data[i] > _ZERO + 9:
                return 3, at, value
            value = 10 * value + data[i] - _ZERO
    return 0, at, value


@no_type_check
@numba.njit(cache=True, nogil=True)
def _skip_argument(data, at, opcode):
    """What is wrong with an argument, the byte after it, and its number."""
    total, kind, value = len(data), np.int64(op.ARGUMENT[opcode]), np.int64(0)
    if kind >= op.LINE:
        return _lines(data, at, opcode, kind - op.LINE + 1)
    size = abs(kind)
    if at + size > total:
        return 1, at, value
    value = _number(data, at, size)
    at += size
    if (kind < 0 or opcode == op.FRAME) and value > total - at:
        return 1, at, value
    if kind < 0:
        at += value
    if (opcode == op.LONG1 or opcode == op.LONG4) and value > LONGEST_INTEGER:
        return 5, at, value
    return 0, at, value


@no_type_check
@numba.njit(cache=True, nogil=True)
def _items(action, opcode):
    """How many items an opcode takes that looks at no mark."""
    if action == op.TUPLE:
        return opcode - op.TUPLE1 + 1
    if action == op.APPEND or action == op.BUILD or opcode == op.BINPERSID:
        return 1
    return 3 if opcode == op.NEWOBJ_EX else 2


@no_type_check
@numba.njit(cache=True, nogil=True)
def _is_long(opcode, value, length):
    """Whether an atom is a whole number of more than 64 bits."""
    if op.NUMBERS[opcode]:
        return length - 2 > _MOST_DIGITS
    return (opcode == op.LONG1 or opcode == op.LONG4) and value > _LONGEST_KEY


@no_type_check
@numba.njit(cache=True, nogil=True)
def _has_large_keys(action, items, objects):
    """Whether something takes long to hash: of a dict's items every other is a key."""
    if action == op.DICT_OF_MARK or action == op.SETITEM or action == op.SETITEMS:
        items = items[::2]
    elif action != op.SET_OF_MARK and action != op.ADDITEMS:
        return False
    for item in items:
        if objects[item, _SIZE] > _KEY_SIZE or objects[item, _DEPTH] > _KEY_DEPTH:
            return True
    return False


# The machine's arrays, which its functions share:
#   stack    objects
#   memo     objects, by the number under which they are stored
#   marks    how high the stack was at each mark
#   objects  a row for each, of the columns below; row 0 stands for all atoms but long whole
#            numbers, and 1 for these: thousands of them can be chosen to have the same hash.
#            Others are containers and results of calls.
#   counts   how many there are of each, in this order:
_HEIGHT, _MEMORISED, _MARKED, _OBJECTS = range(4)
# A depth, a size in values, and whether another object holds it, whose size has counted it.
_DEPTH, _SIZE, _HELD = range(3)


@no_type_check
@numba.njit(cache=True, nogil=True)
def _follow(data):
    """The code of what is wrong, and where; 0 where nothing is."""
    total = len(data)
    most = _SHARING * total + 1024
    stack, memo = np.zeros(1024, np.int32), np.zeros(1024, np.int32)
    marks, counts = np.zeros(64, np.int64), np.zeros(4, np.int64)
    objects = np.zeros((1024, 3), np.int64)
    objects[0, _SIZE], objects[_LONG_NUMBER, _SIZE] = 1, _KEY_SIZE + 1
    counts[_OBJECTS] = _LONG_NUMBER + 1
    at = 0
    while at < total:
        start, opcode = at, data[at]
        action = op.ACTION[opcode]
        if action == op.UNKNOWN:
            return 2, start
        if action == op.STOP:
            return 0, start
        wrong, at, value = _skip_argument(data, at + 1, opcode)
        if wrong:
            return wrong, start
        if counts[_HEIGHT] + 2 >= len(stack):
            stack = _grown(stack)
        if counts[_MARKED] >= len(marks):
            marks = _grown(marks)
        if counts[_OBJECTS] + 1 >= len(objects):
            objects = np.concatenate((objects, np.zeros_like(objects)))
        if action == op.ATOM:
            thing = _LONG_NUMBER * _is_long(opcode, value, at - start)
            _push(stack, counts, thing)
        elif action == op.PUT:
            if opcode == op.MEMOIZE:
                value = counts[_MEMORISED]
            while len(memo) <= value <= total:
                memo = _grown(memo)
            wrong = _put(stack, memo, marks, counts, value, total)
        elif op.MOVES[action]:
            wrong = _move(stack, memo, marks, objects, counts, action, value)
        elif action != op.NOTHING:
            wrong = _gather(stack, marks, objects, counts, action, opcode, most)
        if wrong:
            return wrong, start
    return 0, total


@no_type_check
@numba.njit(cache=True, nogil=True)
def _push(stack, counts, thing):
    stack[counts[_HEIGHT]] = thing
    counts[_HEIGHT] += 1


@no_type_check
@numba.njit(cache=True, nogil=True)
def _push_new(stack, objects, counts, depth, size, held):
    """A container, or the result of a call."""
    new = counts[_OBJECTS]
    objects[new, _DEPTH], objects[new, _SIZE], objects[new, _HELD] = depth, size, held
    counts[_OBJECTS] += 1
    _push(stack, counts, new)


@no_type_check
@numba.njit(cache=True, nogil=True)
def _floor(marks, marked):
    """How high the stack is where what was pushed since the last mark begins."""
    return marks[marked - 1] if marked else np.int64(0)


@no_type_check
@numba.njit(cache=True, nogil=True)
def _put(stack, memo, marks, counts, value, total):
    """What is wrong with storing an object under a number; otherwise does it."""
    height = counts[_HEIGHT]
    if height <= _floor(marks, counts[_MARKED]):
        return 9
    if value > total:
        return 3
    memo[value] = stack[height - 1]
    counts[_MEMORISED] += 1
    return 0


@no_type_check
@numba.njit(cache=True, nogil=True)
def _move(stack, memo, marks, objects, counts, action, value):
    """What is wrong with an opcode that takes no items; otherwise does it."""
    height, marked = counts[_HEIGHT], counts[_MARKED]
    floor = _floor(marks, marked)
    if action == op.EMPTY:
        _push_new(stack, objects, counts, 1, 1, False)
    elif action == op.MARK:
        marks[marked] = height
        counts[_MARKED] += 1
    elif action == op.GET:
        if value >= len(memo):
            return 9
        _push(stack, counts, memo[value])
    elif action == op.POP and marked and height == floor:
        counts[_MARKED] -= 1
    elif height <= floor:
        return 9
    elif action == op.POP:
        counts[_HEIGHT] -= 1
    else:
        _push(stack, counts, stack[height - 1])
    return 0


@no_type_check
@numba.njit(cache=True, nogil=True)
def _gather(stack, marks, objects, counts, action, opcode, most):
    """What is wrong with an opcode that takes items off the stack; otherwise does it."""
    height, marked = counts[_HEIGHT], counts[_MARKED]
    floor = _floor(marks, marked)
    if op.OF_MARK[action]:
        if not marked:
            return 9
        marked -= 1
        first, floor = floor, _floor(marks, marked)
    else:
        first = height - _items(action, opcode)
    fills = op.FILLS[action]
    if first - fills < floor:
        return 9
    items = stack[first:height]
    counts[_HEIGHT], counts[_MARKED] = first, marked
    if action == op.POP_MARK:
        return 0
    deepest, together = np.int64(0), np.int64(1)
    for item in items:
        together += objects[item, _SIZE]
        deepest = max(deepest, objects[item, _DEPTH])
        objects[item, _HELD] = True
    if deepest >= DEEPEST:
        return 4
    if _has_large_keys(action, items, objects):
        return 6
    if action == op.BUILD:  # no reader walks through an object's state
        return 0
    if action == op.STACK_GLOBAL:
        _push(stack, counts, 0)
        return 0
    if fills:
        return _fill(objects, stack[first - 1], deepest, together - 1, most)
    called = op.CALLS[action]
    # A call may return what it was given.
    held = called and together > _BARE_CALL
    depth = max(deepest, 1) if called else deepest + 1
    _push_new(stack, objects, counts, depth, together, held)
    return 7 if together > most else 0


@no_type_check
@numba.njit(cache=True, nogil=True)
def _fill(objects, target, deepest, more, most):
    """What is wrong with a container that gets more values; otherwise counts them."""
    if target <= _LONG_NUMBER:  # Python refuses it
        return 0
    if objects[target, _HELD]:
        return 8
    objects[target, _SIZE] += more
    objects[target, _DEPTH] = max(objects[target, _DEPTH], deepest + 1)
    return 7 if objects[target, _SIZE] > most else 0
