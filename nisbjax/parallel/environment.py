"""Variables of the environment that libraries read when a process starts.

XLA aborts the process at a word of XLA_FLAGS that it does not know, and glibc chooses the pages
of large buffers once. BANIS and PyTC leave both to whoever writes the batch script.
"""

import os
import sys

from nisbjax.errors import InputError


def require_xla_flags(said: str) -> None:
    """Refuses words that are no flags of XLA, at which it would abort the process."""
    for word in said.split():
        if word.startswith("-") and not word.startswith(("--xla_", "--nonxla_")):
            raise InputError(
                f"XLA_FLAGS has {word!r}; wanted --xla_... flags, or no such variable"
            )
    first = said.split()[0] if said.split() else "-"
    if not first.startswith("-") and not os.access(first, os.R_OK):
        raise InputError(
            f"XLA_FLAGS is {said!r}, no flag and no file that can be read; unset it"
        )


def use_huge_pages() -> None:
    """Starts the process again with 2 MiB pages for large buffers, once.

    XLA's buffers on a CPU come from malloc, and glibc reads the setting when a process
    starts; memory-bound loops ran 1.5 to 3 times as fast with it (docs/performance.md).
    """
    name, value = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
    if sys.platform == "linux" and "glibc.malloc.hugetlb" not in os.environ.get(
        name, ""
    ):
        before = os.environ.get(name)
        os.environ[name] = f"{before}:{value}" if before else value
        os.execv(sys.executable, sys.orig_argv)
