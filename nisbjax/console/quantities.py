"""Seconds and bytes in words, as short as they are told apart.

Lightning and tqdm print `0:12:43` and `1.34G`, which leave open what they count.
"""


def duration(seconds: float) -> str:
    """`0.4 s`, `43 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours + (minutes >= 30), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def size(count: int) -> str:
    """Bytes: `512 bytes`, `1.2 GB`, `84 GB` (1 GB is 10^9)."""
    if count < 1000:
        return f"{count} bytes"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 9.95:
            return f"{value:.1f} {unit}"
        if value < 999.5:
            break
    return f"{value:.0f} {unit}"


def shape(lengths: tuple[int, ...] | list[int]) -> str:
    """`64 x 64 x 32`."""
    return " x ".join(str(length) for length in lengths)


def rate(count: int, seconds: float) -> str:
    """How fast that is: `3.1 a second`, or `12 s each` of what takes longer."""
    if not count or not seconds:
        return "-"
    if count >= seconds:
        return f"{count / seconds:.3g} a second"
    return f"{duration(seconds / count)} each"
