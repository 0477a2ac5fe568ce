"""The one exception that a user's input may cause, and the most common refusal.

`nisbjax.launch` prints its text as a single line and exits with status 2; anything
else is a defect of ours and keeps its traceback. PyTC and BANIS let the library's
traceback through in both cases.
"""

from collections.abc import Iterable


class InputError(ValueError):
    """What came, what was wanted, and what to do, in one line."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def require_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Refuses a word that is none of the choices.

    Raises:
      InputError: naming the key, the value and the choices.
    """
    choices = tuple(choices)
    if value not in choices:
        raise InputError(f"{key} is {value!r}; wanted one of {', '.join(choices)}")
