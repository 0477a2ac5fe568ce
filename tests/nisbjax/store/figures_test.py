"""Figures where MPLBACKEND names what is not there."""

import ast
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nisbjax.store import figures

ROOT = pathlib.Path(figures.__file__).parent


@pytest.mark.parametrize(
    ("backend", "after"), [("module://not_installed.backend", ""), ("svg", "svg")]
)
def test_a_backend_of_the_environment_is_left_to_others(tmp_path, backend, after):
    program = (
        "import os; from nisbjax.store import figures; "
        "figures.save(figures.figure(), 'a.png', dpi=10); "
        "import matplotlib; print(os.environ['MPLBACKEND'], "
        "matplotlib.rcParams['backend'] if 'svg' in os.environ['MPLBACKEND'] else '')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": backend},
    )
    assert done.stdout.split() == [backend, *after.split()]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_pixels():
    """1 x 2 inches at 10 dots: 20 rows of 10 pixels; white, where nothing is drawn."""
    pixels = figures.pixels(figures.figure(figsize=(1, 2), dpi=10))
    assert pixels.shape == (20, 10, 3) and pixels.dtype == np.uint8
    assert (pixels == 255).all()


def test_nothing_else_imports_matplotlib():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            drawing = [n for n in names if n.split(".")[0] == "matplotlib"]
            assert not drawing or path.stem == "figures", path
