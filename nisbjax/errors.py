"""The one exception that a user's input may cause.

`nisbjax.launch` prints its text as a single line and exits with status 2; anything
else is a defect of ours and keeps its traceback. PyTC and BANIS let the library's
traceback through in both cases.
"""


class InputError(ValueError):
    """What came, what was wanted, and what to do, in one line."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))
