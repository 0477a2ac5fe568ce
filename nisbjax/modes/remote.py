"""Addresses in a mode: how they are reached, as the keys say, and what came from them.

What is settled holds for the whole process, since volumes are opened by their paths in every
stage. PyTC and BANIS read this machine's files alone.
"""

from absl import logging

from nisbjax.console import quantities
from nisbjax.keys.checks import optional
from nisbjax.store import access
from nisbjax.typing import Config


def settle(config: Config) -> None:
    """Lets addresses be reached as `remote` and `data.cache_gb` say.

    Raises:
      InputError: as `access.settle`.
    """
    asked = config.remote
    access.settle(
        access.Access(
            endpoint=optional(asked.endpoint),
            region=optional(asked.region),
            anonymous=asked.anonymous,
            profile=optional(asked.profile),
            timeout_s=asked.timeout_s,
            retries=asked.retries,
            cache_gb=config.data.cache_gb,
        )
    )


def say_fetched() -> None:
    """Says in the log how much this process has read from addresses, and written there."""
    for what, (size, requests) in (
        ("fetched from", access.fetched()),
        ("sent to", access.sent()),
    ):
        if requests:
            said = quantities.size(size), what, f"{requests:,}"
            logging.info("%s %s addresses in %s requests", *said)
