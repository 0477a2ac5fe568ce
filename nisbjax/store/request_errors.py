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
# S3 repeats in it who asked, and what was signed.
_UNSAID = re.compile(r" \[(?:http_response_body|x-amzn-requestid)='.*?'\]", re.DOTALL)
_SAID = (
    (
        _FORBIDDEN,
        "it may not be {act}",
        (
            "name the account by --config.remote.profile, or ask without one, "
            "--config.remote.anonymous"
        ),
    ),
    (
        r"retry attempts failed|UNAVAILABLE|ABORTED|DEADLINE|Could not connect|timed out",
        "it cannot be reached",
        (
            "run it again, what is done is kept; or check the address, "
            "--config.remote.endpoint and the network"
        ),
    ),
)


def unreachable(source: str, error: BaseException, act: str = "read") -> InputError:
    """One line for what TensorStore says of an address.

    Args:
      source: the address.
      error: what was raised.
      act: what it was to be, `read` or `written`.
    """
    said = str(error)
    text = said_of(error)
    for pattern, what, advice in _SAID:
        if re.search(pattern, said):
            return InputError(f"{source}: {what.format(act=act)} ({text}); {advice}")
    return InputError(f"{source} cannot be {act}: {text}; check the address")


def said_of(error: BaseException) -> str:
    """An error's own words on one line, without those that a server repeats of the request."""
    return re.sub(r"\s+", " ", _UNSAID.sub("", words(error)))


def is_forbidden(error: BaseException) -> bool:
    """Whether an account is missing or may not, and the server as such can be reached."""
    return re.search(_FORBIDDEN, str(error)) is not None
