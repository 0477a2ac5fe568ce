"""What is said of an address that cannot be reached or may not be used: one line.

TensorStore has a few types of exceptions for all of it, so its words are looked at.
"""

import re

from nisbjax.errors import InputError
from nisbjax.store.views import words

_FORBIDDEN = (
    r"PERMISSION_DENIED|UNAUTHENTICATED|HTTP code 40[13]|Access ?Denied|[Cc]redential"
    r"|InvalidAccessKey|SignatureDoesNotMatch"
)
_SAID = (
    (
        _FORBIDDEN,
        "it may not be read",
        (
            "name the account by --config.remote.profile, or ask without one, "
            "--config.remote.anonymous"
        ),
    ),
    (
        r"retry attempts failed|UNAVAILABLE|ABORTED|DEADLINE",
        "it cannot be reached",
        (
            "run it again, what is done is kept; or check the address, "
            "--config.remote.endpoint and the network"
        ),
    ),
)


def unreachable(source: str, error: BaseException) -> InputError:
    """One line for what TensorStore says of an address."""
    said = str(error)
    text = re.sub(r"\s+", " ", words(error))
    for pattern, what, advice in _SAID:
        if re.search(pattern, said):
            return InputError(f"{source}: {what} ({text}); {advice}")
    return InputError(f"{source} cannot be read: {text}; check the address")


def is_forbidden(error: BaseException) -> bool:
    """Whether an account is missing or may not, and the server as such can be reached."""
    return re.search(_FORBIDDEN, str(error)) is not None
