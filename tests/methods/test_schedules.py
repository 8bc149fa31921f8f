"""Values that fall in the course of a training."""

from nar_plugin.methods.schedules import falling


def test_a_value_is_held_then_falls_in_a_line_and_never_below_zero() -> None:
    """LANMT-4: b(0) = b(M/2) = 1, b(3M/4) = 0.5, b(M) = 0 and after it."""
    found = [falling(update, 1.0, 500, 1000) for update in (0, 500, 750, 1000, 2000)]
    assert found == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert falling(10**6, 0.7, 0, 0) == 0.7
