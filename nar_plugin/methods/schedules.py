"""What changes in the course of a training, as a function of the update: nothing to save, nothing lost by a resume."""


def falling(update: int, value: float, begin: int, end: int) -> float:
    """``value`` up to update ``begin``, then in a line to 0 at ``end`` and after; where ``end`` is 0, ``value``."""
    if not end or update <= begin:
        return value
    return value * max(0.0, (end - update) / (end - begin))


def climbing(update: float, end: float) -> float:
    """From 0.01 in a line to 1 at update ``end`` and after; where ``end`` is 0, 1."""
    return 0.01 + 0.99 * min(1.0, update / end) if end else 1.0


def rising(update: float, end: float) -> float:
    """From 0.01 exponentially to 1 at update ``end`` and after; where ``end`` is 0, 1."""
    return 0.01 ** max(0.0, 1 - update / end) if end else 1.0
