"""`python -m nisbjax`, and the console script `nisbjax`."""

from nisbjax.parallel import signals


def main() -> None:
    """The command line; see `nisbjax.launch`."""
    signals.end_at_once()
    from nisbjax import launch  # takes a second to import

    launch.start()


if __name__ == "__main__":
    main()
