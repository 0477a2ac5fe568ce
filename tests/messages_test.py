"""What the program says: every key, flag, mode, value, page and extra that it names is there.

All texts of the sources but docstrings are read, so that a key that is renamed takes the
advice that names it along.
"""

import ast
import functools
import pathlib
import re
import tomllib

import pytest

from nisbjax import config, launch
from nisbjax.config import flatten
from nisbjax.keys import ranges

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = config.base_config()
KEYS = set(flatten(CONFIG.to_dict()))
SECTIONS = {key.rpartition(".")[0] for key in KEYS} | {k.split(".")[0] for k in KEYS}
MODES = {*launch.MODES, *launch.PATH_MODES, *launch.CONFIGURED_PATH_MODES, "config"}
FOREIGN = {"ntasks", "xla_", "nxla_", "storage"}  # of sbatch, XLA, Optuna
LISTED = "nisbjax/keys/meanings.py"  # keys without their section; has tests of its own
HOLE = "\x00"  # where a value is put in


@functools.cache
def trees() -> dict[pathlib.Path, ast.Module]:
    paths = sorted((ROOT / "nisbjax").rglob("*.py"))
    return {path: ast.parse(path.read_text()) for path in paths}


@functools.cache
def texts() -> list[tuple[str, str]]:
    """Every text of the package, as (place, text with holes for values)."""
    found = [("nisbjax/launch.py", launch.__doc__ or "")]
    for path, tree in trees().items():
        skipped = docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                skipped |= {id(part) for part in node.values}
                text = "".join(map(said, node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            if id(node) not in skipped:
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                found.append((place, text))
    return found


def said(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else HOLE


def docstrings(tree: ast.AST) -> set[int]:
    """Texts that stand alone: of modules, classes, functions, attributes."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def own_flags() -> set[str]:
    source = (ROOT / "nisbjax/launch.py").read_text()
    names = re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source)
    return {*names, "config", "help", "version"}


def named(pattern: str) -> list[tuple[str, str]]:
    """Places and what stands in the pattern's group there."""
    return [
        (place, match[1])
        for place, text in texts()
        for match in re.finditer(pattern, text)
    ]


def test_texts_are_found():
    """The test's own eyes: one message of two pieces and a value, and no docstring."""
    joined = [text for _, text in texts() if "name the folder that holds it" in text]
    assert joined and "--config.data.root=DIR" in joined[0]
    assert not [
        text for _, text in texts() if text.startswith("The locked configuration")
    ]
    assert len(texts()) > 3000


def test_flags():
    known = own_flags() | FOREIGN
    assert {"workdir", "redo", "coordinator"} <= known
    found = named(r"(?<![\w-])--(?:no)?([a-z_]+)(?![\w.-])")
    assert len(found) > 50
    unknown = [(place, flag) for place, flag in found if flag not in known]
    assert unknown == []


def test_keys_that_are_given_as_flags():
    found = named(r"--config\.([a-z_]+(?:\.[a-z_]+)*)")
    assert len(found) > 30
    unknown = [
        (place, key)
        for place, key in found
        if key not in KEYS and key not in SECTIONS and key not in ("any.key", "key")
    ]
    assert unknown == []


def test_keys_in_prose():
    """`decode.min_size` in a message is a key, where its first word is a section."""
    firsts = "|".join(sorted({key.split(".")[0] for key in KEYS if "." in key}))
    pattern = rf"(?<![\w./\x00-])((?:{firsts})\.[a-z_]+(?:\.[a-z_]+)?)(?![\w/(\[])"
    files = {"zarr", "json", "md", "h5", "png", "py", "csv", "yaml", "txt", "db", "npz"}
    found = [
        (place, key)
        for place, text in texts()
        if " " in text and not place.startswith(LISTED)
        for key in re.findall(pattern, text)
        if key.rpartition(".")[2] not in files
    ]
    assert len(found) > 100
    assert [
        (place, key)
        for place, key in found
        if key not in KEYS
        and key not in SECTIONS
        and key.rpartition(".")[0] not in KEYS
    ] == []


def test_values_that_keys_are_told_to_have():
    found = [
        (place, key, match[2])
        for place, text in texts()
        for match in re.finditer(
            r"(?:--config\.)?\b([a-z_]+\.[a-z_.]+)=([\w.-]+)", text
        )
        for key in (match[1],)
        if key in KEYS
    ]
    assert len(found) > 10
    found = [(place, key, text.rstrip(".,")) for place, key, text in found]
    wrong = [
        (place, key, text)
        for place, key, text in found
        # In capitals (DIR, FILE) it stands for something.
        if text and not text.isupper() and not any(map(holds(key), values(key, text)))
    ]
    assert wrong == []


def holds(key):
    return ranges.RANGES[key].holds


def values(key: str, text: str) -> list:
    """What a flag may make of a text: of the default's type, or three of a number."""
    default = flatten(CONFIG.to_dict())[key]
    if isinstance(default, str):
        return [text]
    if text.isidentifier() and text not in ("True", "False", "None"):
        return [(text,)]  # of several words, one
    value = ast.literal_eval(text)
    if isinstance(default, float):
        return [float(value)]
    return [(value,), (value,) * 3] if isinstance(default, tuple | list) else [value]


def test_modes():
    found = named(r"--mode=([a-z][a-z-]*)")
    assert len(found) > 20
    assert [(place, mode) for place, mode in found if mode not in MODES] == []


@pytest.mark.parametrize("pattern", [r"\b(docs/\w+\.md)", r"\b(configs/\w+\.py)"])
def test_pages_and_presets(pattern):
    found = named(pattern)
    assert found
    assert [(place, p) for place, p in found if not (ROOT / p).is_file()] == []


def test_extras():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = set(table["project"]["optional-dependencies"])
    found = named(r"nisbjax\[(\w+)\]")
    assert found
    assert [(place, extra) for place, extra in found if extra not in extras] == []


def test_errors_are_lines():
    """No text of an error breaks a line."""
    wrong = []
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "InputError":
                continue
            pieces = [p.value for p in ast.walk(node) if isinstance(p, ast.Constant)]
            if any("\n" in p for p in pieces if isinstance(p, str)):
                wrong.append(f"{path.name}:{node.lineno}")
    assert wrong == []
