"""Who may import whom. Fails closed: a module that is not listed may import nothing.

The walls keep data flowing one way and let decoding, QC and scoring start on a CPU node
without JAX.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "nisbjax"

# Rooms from the ground up; a room may import the rooms that its line names, and modules of
# its own package.
LEVEL_0 = {"errors", "outside", "typing", "geometry", "offsets", "unlabeled"}
LEVEL_1 = ["store", "mask", "figures", "config", "keys", "artifacts", "skeletons"]
LEVEL_1 += ["parallel", "checkpoint"]
ALLOWED: dict[str, set[str]] = {
    "": {"parallel"},
    "errors": set(),
    "outside": {"errors"},
    "typing": set(),
    "geometry": {"errors", "typing"},
    "offsets": {"errors", "typing"},
    "unlabeled": {"errors"},
}
for number, room in enumerate(LEVEL_1):
    ALLOWED[room] = LEVEL_0 | set(LEVEL_1[:number])
BASE = LEVEL_0 | set(LEVEL_1)
for room in ("data", "models", "qc", "decode", "evaluate", "synth"):
    ALLOWED[room] = BASE
ALLOWED["train"] = BASE | {"data", "models"}
ALLOWED["infer"] = BASE | {"data", "models", "qc"}
ALLOWED["tune"] = BASE | {"decode", "evaluate"}
ALLOWED["viz"] = BASE
STAGES = {"data", "synth", "models", "train", "infer", "qc", "decode", "evaluate"}
STAGES |= {"tune", "viz"}
ALLOWED["modes"] = BASE | STAGES
ALLOWED["foreign"] = {"modes"}
ALLOWED["launch"] = BASE | {"modes", "foreign"}

WITHOUT_JAX = ["qc", "decode", "evaluate", "tune"]
MAY_IMPORT_JAX = {
    "parallel",
    "checkpoint",
    "data",
    "models",
    "train",
    "infer",
    "modes",
    "launch",
    "foreign",
}


def modules():
    return sorted(ROOT.rglob("*.py"))


def room_of(path: pathlib.Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py").removeprefix("__init__")


def imports(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_stay_inside_the_walls(path):
    room = room_of(path)
    assert room in ALLOWED, f"{room} is not listed: add it with what it may import"
    names = imports(path)
    own = {n.split(".")[1] for n in names if n.startswith("nisbjax.")} - {room}
    own -= {"__version__"}
    forbidden = own - ALLOWED[room]
    assert not forbidden, f"{room} imports {sorted(forbidden)}"
    foreign = {n.split(".")[0] for n in names}
    assert "torch" not in foreign
    if room not in MAY_IMPORT_JAX:
        assert not foreign & {"jax", "flax", "optax", "orbax"}, f"{room} imports JAX"


def test_walls_are_tested_by_a_forbidden_import(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("from nisbjax.train import loop\nimport jax.numpy as jnp\n")
    assert imports(file) == {"nisbjax.train.loop", "jax.numpy"}


def test_cpu_stages_do_not_load_jax():
    names = [
        f"nisbjax.{p.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}"
        for p in modules()
        if room_of(p) in WITHOUT_JAX and p.stem != "__init__"
    ]
    assert names
    program = f"import sys, importlib\nfor n in {names}: importlib.import_module(n)\n"
    program += "print([m for m in sys.modules if m.split('.')[0] in ('jax', 'jaxlib')])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
