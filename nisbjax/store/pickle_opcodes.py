"""The opcodes of pickles: what each does to the stack, and what stands behind it.

From the list of `pickletools`, which names an opcode and the form of its argument; here each
is also one of some twenty actions, so that a kernel can follow a pickle by tables. They
are frozen into what numba compiles, so this module counts among its sources
(`parallel/kernel_cache.py` looks for the word).
"""

import pickletools

import numpy as np

# What an opcode does to the stack.
(
    NOTHING,
    ATOM,
    EMPTY,
    MARK,
    TUPLE,
    TUPLE_OF_MARK,
    LIST_OF_MARK,
    DICT_OF_MARK,
    SET_OF_MARK,
    APPEND,
    APPENDS,
    SETITEM,
    SETITEMS,
    ADDITEMS,
    CALL,
    CALL_OF_MARK,
    BUILD,
    PUT,
    GET,
    POP,
    POP_MARK,
    DUP,
    STACK_GLOBAL,
    STOP,
    UNKNOWN,
) = range(25)

_ACTIONS = {
    "PROTO FRAME": NOTHING,
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 NONE NEWTRUE NEWFALSE UNICODE "
    "SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT GLOBAL PERSID": ATOM,
    "EMPTY_LIST EMPTY_DICT EMPTY_SET EMPTY_TUPLE": EMPTY,
    "MARK": MARK,
    "TUPLE1 TUPLE2 TUPLE3": TUPLE,
    "TUPLE": TUPLE_OF_MARK,
    "LIST": LIST_OF_MARK,
    "DICT": DICT_OF_MARK,
    "FROZENSET": SET_OF_MARK,
    "APPEND": APPEND,
    "APPENDS": APPENDS,
    "SETITEM": SETITEM,
    "SETITEMS": SETITEMS,
    "ADDITEMS": ADDITEMS,
    "REDUCE NEWOBJ NEWOBJ_EX BINPERSID": CALL,
    "INST OBJ": CALL_OF_MARK,
    "BUILD": BUILD,
    "PUT BINPUT LONG_BINPUT MEMOIZE": PUT,
    "GET BINGET LONG_BINGET": GET,
    "POP": POP,
    "POP_MARK": POP_MARK,
    "DUP": DUP,
    "STACK_GLOBAL": STACK_GLOBAL,
    "STOP": STOP,
}
_OPCODES = {opcode.name: opcode for opcode in pickletools.opcodes}
ACTION = np.full(256, UNKNOWN, np.int8)
# Bytes of an argument; of the length before it, negative; 99 for a line, 100 for two.
ARGUMENT = np.zeros(256, np.int8)
LINE, TWO_LINES = 99, 100
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: -1,
    pickletools.TAKEN_FROM_ARGUMENT4: -4,
    pickletools.TAKEN_FROM_ARGUMENT4U: -4,
    pickletools.TAKEN_FROM_ARGUMENT8U: -8,
}
for _names, _code in _ACTIONS.items():
    for _name in _names.split():
        _opcode = _OPCODES[_name]
        _size = 0 if _opcode.arg is None else _opcode.arg.n
        if _size == pickletools.UP_TO_NEWLINE:
            _size = TWO_LINES if _name in ("GLOBAL", "INST") else LINE
        ACTION[ord(_opcode.code)] = _code
        ARGUMENT[ord(_opcode.code)] = _LENGTHS.get(_size, _size)


def _marked(codes: tuple[int, ...]) -> np.ndarray:
    return np.isin(np.arange(UNKNOWN + 1), codes)


FILLS = _marked((APPEND, APPENDS, SETITEM, SETITEMS, ADDITEMS, BUILD))
MOVES = _marked((EMPTY, MARK, GET, POP, DUP))
CALLS = _marked((CALL, CALL_OF_MARK))
OF_MARK = _marked((TUPLE_OF_MARK, LIST_OF_MARK, DICT_OF_MARK, SET_OF_MARK))
OF_MARK |= _marked((APPENDS, SETITEMS, ADDITEMS, CALL_OF_MARK, POP_MARK))
_BYTE = {name: ord(opcode.code) for name, opcode in _OPCODES.items()}
PUT_LINE, GET_LINE, MEMOIZE = _BYTE["PUT"], _BYTE["GET"], _BYTE["MEMOIZE"]
LONG1, LONG4, FRAME = _BYTE["LONG1"], _BYTE["LONG4"], _BYTE["FRAME"]
NEWOBJ_EX, BINPERSID = _BYTE["NEWOBJ_EX"], _BYTE["BINPERSID"]
TUPLE1 = _BYTE["TUPLE1"]
TEXTS = np.isin(np.arange(256), (_BYTE["STRING"], _BYTE["UNICODE"]))
NUMBERS = np.isin(np.arange(256), (_BYTE["INT"], _BYTE["LONG"]))
