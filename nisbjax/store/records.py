"""One validating reader for small files: JSON, JSON lines and YAML, ours or typed by hand.

A file is read with bounds (bytes, depth, digits), as UTF-8, and compared with a schema
(`nisbjax.store.schema`). Whatever is wrong is one InputError with file, key, what
came and what was wanted. PyTC takes what `yaml.safe_load` and `json.load` give, so a word
where a number belongs is found later, as a traceback or not at all.

    SCHEMA = {"step": whole(), "scores": table_of(number()), "note": optional(text())}
    facts = read_json(path, SCHEMA, "run --mode=validate again")

Keys that a schema does not name are let through, since later versions may add some.
"""

import json
import os
import reprlib
from collections.abc import Sequence
from typing import Any

import yaml
import yaml.composer
import yaml.constructor

from nisbjax.errors import InputError
from nisbjax.store import files
from nisbjax.store.schema import Schema, as_kind, shown

_MOST_BYTES = 64_000_000
_MOST_YAML_BYTES = 1_000_000  # its parser is in Python
_MOST_LINES_BYTES = 4_000_000_000  # a manifest has a line for each box
_DEEPEST = 32
_LONGEST_NUMBER = 100  # characters: 1:1:1:... is a number to YAML, in quadratic time


def check(value: Any, schema: Schema, where: str, advice: str = "") -> Any:
    """A value, if it is what a schema wants.

    Args:
      value: of dicts, lists, numbers, text, booleans and None.
      schema: what it must be.
      where: file, and line or attribute, for the message.
      advice: what to do about it, for the message.

    Returns:
      `value`.

    Raises:
      InputError: it is something else.
    """
    problem = as_kind(schema).problem(value)
    if problem is not None:
        at = f"{where}: {problem.at}" if problem.at else where
        raise _error(f"{at} {problem.came}; wanted {problem.wanted}", advice)
    return value


def read_json(
    path: str | os.PathLike,
    schema: Schema,
    advice: str = "",
    most_bytes: int = _MOST_BYTES,
) -> Any:
    """What a JSON file holds, if it is what a schema wants.

    Args:
      path: of the file.
      schema: what its value must be.
      advice: what to do where it is not.
      most_bytes: that it may have.

    Raises:
      InputError: it cannot be read, or holds something else.
    """
    content = _content(path, most_bytes, advice)
    return parse_json(content, schema, str(path), advice)


def parse_json(
    content: str | bytes, schema: Schema, where: str, advice: str = ""
) -> Any:
    """As `read_json`, of a text that is at hand (an attribute, an entry of an archive)."""
    try:
        if isinstance(content, bytes):
            content = content.decode("utf-8-sig")
        value = json.loads(content, object_pairs_hook=_without_doubles)
    except UnicodeDecodeError as error:
        raise _error(f"{where} is not UTF-8 ({error.reason})", advice) from None
    except RecursionError:
        raise _too_deep(where, advice) from None
    except ValueError as error:
        problem = " ".join(str(error).split())[:200]
        raise _error(f"{where} is not valid JSON ({problem})", advice) from None
    _require_shallow(value, where, advice)
    return check(value, schema, where, advice)


def read_json_lines(
    path: str | os.PathLike,
    schema: Schema,
    advice: str = "",
    most_bytes: int = _MOST_LINES_BYTES,
) -> tuple[list[Any], int]:
    """The values of a file of JSON lines, and the length in bytes of its whole lines.

    A last line without its end is what a kill leaves; it is not read.

    Args:
      path: of the file.
      schema: what each line must be.
      advice: what to do where one is not.
      most_bytes: that it may have.

    Raises:
      InputError: it cannot be read, or a line holds something else.
    """
    content = _content(path, most_bytes, advice)
    return parse_json_lines(content, schema, str(path), advice)


def parse_json_lines(
    content: bytes, schema: Schema, where: str, advice: str = ""
) -> tuple[list[Any], int]:
    """As `read_json_lines`, of what is at hand (an object at an address)."""
    length = content.rfind(b"\n") + 1
    values = [
        parse_json(line, schema, f"{where}, line {number}", advice)
        for number, line in enumerate(content[:length].split(b"\n")[:-1], 1)
    ]
    return values, length


def read_yaml(
    path: str | os.PathLike,
    schema: Schema,
    advice: str = "",
    most_bytes: int = _MOST_YAML_BYTES,
) -> Any:
    """What a YAML file holds, if it is what a schema wants.

    Plain values alone: no tags of other languages, and no aliases, with which a few bytes
    become gigabytes.

    Args:
      path: of the file.
      schema: what its value must be.
      advice: what to do where it is not.
      most_bytes: that it may have.

    Raises:
      InputError: it cannot be read, or holds something else.
    """
    content = _content(path, most_bytes, advice)
    try:
        lines = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _error(f"{path} is not UTF-8 ({error.reason})", advice) from None
    value = parse_yaml(lines, str(path), advice)
    return check(value, schema, str(path), advice)


def parse_yaml(content: str, where: str, advice: str = "", first_line: int = 1) -> Any:
    """The value of a YAML text, with `read_yaml`'s bounds.

    Args:
      content: the text.
      where: file, for the message.
      advice: what to do about it, for the message.
      first_line: of the text in its file, for the message.

    Raises:
      InputError: it is no YAML of plain values, naming the line.
    """
    try:
        value = yaml.load(content, _PlainLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = first_line + (mark.line if mark is not None else 0)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None)
        problem = " ".join(str(problem or "not valid YAML").split())[:200]
        raise _error(f"{where}, line {line}: {problem}", advice) from None
    except RecursionError:
        raise _too_deep(where, advice) from None
    except (ValueError, OverflowError) as error:  # 2001-99-99
        problem = reprlib.repr(str(error))
        raise _error(f"{where} cannot be read ({problem})", advice) from None
    _require_shallow(value, where, advice)
    return value


class _PlainLoader(yaml.SafeLoader):
    """Plain values, each key once, nothing that grows."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(
                None, None, "an alias (*name); write the value itself", mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in getattr(node, "value", []):
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key that is no text or number"
            elif key.value in seen:
                problem = f"{shown(key.value)} is there a second time"
            else:
                seen.add(key.value)
                continue
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)

    def _short_number(self, node):
        if len(node.value) > _LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(
                None, None, "a number of too many digits", node.start_mark
            )
        if node.tag.endswith(":int"):
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _PlainLoader.add_constructor(
        f"tag:yaml.org,2002:{_tag}", _PlainLoader._short_number
    )


def _content(path: str | os.PathLike, most_bytes: int, advice: str) -> bytes:
    try:
        return files.read_bytes(path, most_bytes)
    except InputError as error:
        raise _error(str(error), advice) from None


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"{shown(key)} is there a second time")
            seen.add(key)
    return found


def _require_shallow(value: Any, where: str, advice: str) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        containers = [each for each in level if isinstance(each, dict | list)]
        if not containers:
            return
        level = [
            inner
            for each in containers
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    if any(isinstance(each, dict | list) for each in level):
        raise _too_deep(where, advice)


def _too_deep(where: str, advice: str) -> InputError:
    return _error(f"{where} is nested more than {_DEEPEST} levels deep", advice)


def _error(message: str, advice: str) -> InputError:
    return InputError(f"{message}; {advice}" if advice else message)
