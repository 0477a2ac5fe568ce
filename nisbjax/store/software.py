"""The software's own name, as everything that it writes says it.

PyTC and BANIS write files that do not say what made them.
"""

VERSION = "0.1.0"
NAME = f"nisbjax {VERSION}"


def is_ours(said: object) -> bool:
    """Whether a file's word on its software names this one, of any version."""
    return str(said).startswith("nisbjax ")
