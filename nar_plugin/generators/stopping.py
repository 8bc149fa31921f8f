"""When a sentence needs no further refinement."""

from typing import Callable

from torch import Tensor

from ..methods.contract import State
from ..methods.symbols import same_rows

StopRule = Callable[[State, State, int], Tensor | None]


def never(before: State, after: State, pad: int) -> Tensor | None:
    return None


def fixed_point(before: State, after: State, pad: int) -> Tensor | None:
    """(R,) True where a pass changed no token."""
    assert before.tokens is not None and after.tokens is not None
    return same_rows(before.tokens, after.tokens, pad)


RULES: dict[str, StopRule] = {"none": never, "fixed-point": fixed_point}


def kept(rule: StopRule, state: State) -> State:
    """What a rule may look at after a pass, which may consume the state before it."""
    if rule is never or state.tokens is None:
        return state
    return State(tokens=state.tokens.clone())


def finished(rule: StopRule, before: State, after: State, pad: int) -> Tensor | None:
    """(R,) True where the rule or the method itself is finished; None where neither speaks, which costs no sync."""
    verdict = rule(before, after, pad)
    if after.done is None or verdict is None:
        return after.done if verdict is None else verdict
    return verdict | after.done
