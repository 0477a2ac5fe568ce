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

# A line for each room (a folder, or a file at the top): what it may import besides modules
# of its own. `ground` and `base` stand for the rooms of those lines; "+jax" for JAX itself.
WALLS = """
errors
typing
geometry     errors typing
offsets      errors typing
console      errors typing
ground       errors typing geometry offsets console

store        ground
mask         ground store
config       ground store
keys         ground store config
artifacts    ground store config
skeletons    ground store
parallel     ground store +jax
checkpoint   ground store parallel +jax
estimates    ground
base         ground store mask config keys artifacts skeletons parallel checkpoint

data         base +jax
synth        base
convert      base
models       base +jax
qc           base
decode       base
evaluate     base
skeletonize  base
train        base data models +jax
infer        base data models +jax
tune         base decode evaluate
viz          base
modes        base estimates data synth convert models train infer qc decode evaluate skeletonize tune viz +jax
foreign      modes
launch       base modes
__main__     parallel launch
nisbjax      store parallel
"""
# These start on a node of CPUs at once.
WITHOUT_JAX = ["qc", "decode", "evaluate", "tune", "skeletonize"]


def allowed() -> dict[str, set[str]]:
    """Room -> the rooms that it may import, from `WALLS`; lines build on those above."""
    table: dict[str, set[str]] = {}
    for line in WALLS.split("\n"):
        room, *names = line.split() or [""]
        named = set()
        for name in names:
            assert name == "+jax" or name in table, f"{room}: {name} stands below it"
            named |= {name} | (table[name] if name in ("ground", "base") else set())
        table[room] = named
    del table[""]
    return table


def modules():
    return sorted(ROOT.rglob("*.py"))


def room_of(path: pathlib.Path) -> str:
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "nisbjax" if first == "__init__" else first


def imports(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def broken_walls(path: pathlib.Path, room: str) -> list[str]:
    """What a module of a room imports and may not."""
    walls = allowed()
    if room not in walls:
        return [f"{room} is not listed: add it with what it may import"]
    names = imports(path)
    own = {n.split(".")[1] for n in names if n.startswith("nisbjax.")} - {room}
    found = [f"{room} imports {n}" for n in own - walls[room]]
    libraries = {n.split(".")[0] for n in names}
    forbidden = {"torch"}
    if "+jax" not in walls[room]:
        forbidden |= {"jax", "flax", "optax", "orbax"}
    return sorted(found + [f"{room} imports {n}" for n in libraries & forbidden])


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_stay_inside_the_walls(path):
    if path == ROOT / "__init__.py":
        # The stable names: imported when asked for, and by name for type checkers.
        assert "nisbjax.parallel.kernel_cache" in imports(path)
        return
    assert not broken_walls(path, room_of(path))


@pytest.mark.parametrize(
    "room, line, said",
    [
        ("decode", "from nisbjax.train import loop", "decode imports train"),
        ("decode", "import nisbjax.tune.stage", "decode imports tune"),
        ("evaluate", "def f():\n    import jax.numpy", "evaluate imports jax"),
        ("train", "import torch", "train imports torch"),
        ("store", "from nisbjax import mask", "store imports mask"),
        ("cellar", "import os", "cellar is not listed"),
        ("decode", "from nisbjax.decode import grow\nimport numba", ""),
    ],
)
def test_a_module_behind_the_walls_is_found(tmp_path, room, line, said):
    file = tmp_path / "x.py"
    file.write_text(line)
    found = broken_walls(file, room)
    assert len(found) == bool(said)
    assert all(f.startswith(said) for f in found)


def test_cpu_stages_do_not_load_jax():
    names = [
        f"nisbjax.{p.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}"
        for p in modules()
        if room_of(p) in WITHOUT_JAX and p.stem != "__init__"
    ]
    assert names
    # Their modes too, and the search for the checkpoint whose files they take.
    names += [f"nisbjax.modes.{mode}" for mode in ("alone", "workflow", "skeletonize")]
    program = f"import sys, importlib\nfor n in {names}: importlib.import_module(n)\n"
    program += "print([m for m in sys.modules if m.split('.')[0] in ('jax', 'jaxlib')])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
