"""Makes the torch twin importable by the tests of this folder."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent))
