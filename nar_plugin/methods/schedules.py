"""What changes in the course of a training, as a function of the update: nothing to save, nothing lost by a resume."""


def falling(update: int, value: float, begin: int, end: int) -> float:
    """``value`` up to update ``begin``, then in a line to 0 at ``end`` and after; where ``end`` is 0, ``value``."""
    if not end or update <= begin:
        return value
    return value * max(0.0, (end - update) / (end - begin))
