"""What `--help`, `--help=SECTION`, `-h` and `--version` print.

absl's own help lists flags and ends with status 1; here it lists modes, presets and sections
of keys, and nothing is imported for it that takes time.
"""

from collections.abc import Sequence

from nisbjax.keys import page
from nisbjax.modes import presets
from nisbjax.store import software

_HELP = ("h", "?", "help", "helpshort", "helpfull")


def asked_for(arguments: Sequence[str], about: str) -> str:
    """What the command line asks to be told; "" where it asks for work.

    Args:
      arguments: those after the program's name.
      about: what `--help` begins with.

    Raises:
      InputError: help on a section that there is none of.
    """
    for i, argument in enumerate(arguments):
        if argument == "--":
            break
        name, _, topic = argument.lstrip("-").partition("=")
        if not argument.startswith("-"):
            continue
        if name == "version":
            return f"nisbjax {software.VERSION}"
        if name in _HELP:
            after = "".join(arguments[i + 1 : i + 2])
            topic = topic or ("" if after.startswith("-") else after)
            return page.section_text(topic) if topic else _overview(about)
    return ""


def _overview(about: str) -> str:
    lines = [about.strip(), "", "presets, --config=NAME:"]
    lines += [f"  {name:<12} {said}" for name, said in presets.summaries().items()]
    lines += ["", "sections of keys, --help=SECTION:"]
    named = [section for section in page.sections() if section]
    half = len(named) // 2
    lines += [f"  {' '.join(part)}" for part in (named[:half], named[half:])]
    return "\n".join(lines)
