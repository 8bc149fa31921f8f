"""Records whose rows can be dropped, repeated and re-ordered."""

from dataclasses import FrozenInstanceError, dataclass
from typing import Any, NamedTuple, Optional

import pytest
import torch
from torch import Tensor

from nar_plugin.methods.contract import Encoded, Proposals, Rows, State, UsageError


@dataclass(frozen=True, kw_only=True)
class Nested(Rows):
    value: Tensor
    pairs: tuple[tuple[Tensor, Tensor], ...]
    absent: Optional[Tensor] = None
    name: str = "kept"


@dataclass(frozen=True, kw_only=True)
class Outer(State):
    inner: Nested


def outer() -> Outer:
    column = torch.arange(4)
    nested = Nested(value=column * 10, pairs=((column, column + 1), (column + 2, column + 3)))
    return Outer(tokens=column[:, None].repeat(1, 3), done=column > 1, inner=nested)


def test_select_reaches_every_tensor_at_any_depth() -> None:
    chosen = outer().select(torch.tensor([3, 0, 0]))
    assert chosen.tokens.tolist() == [[3] * 3, [0] * 3, [0] * 3] and chosen.done.tolist() == [True, False, False]
    assert chosen.inner.value.tolist() == [30, 0, 0]
    assert [[t.tolist() for t in pair] for pair in chosen.inner.pairs] == [
        [[3, 0, 0], [4, 1, 1]],
        [[5, 2, 2], [6, 3, 3]],
    ]
    assert type(chosen) is Outer and chosen.inner.name == "kept" and chosen.inner.absent is None


def test_select_leaves_the_record_as_it_was() -> None:
    record = outer()
    record.select(torch.tensor([1]))
    assert record.inner.value.tolist() == [0, 10, 20, 30]


def test_selecting_no_row_gives_an_empty_record() -> None:
    assert outer().select(torch.tensor([], dtype=torch.int64)).tokens.shape == (0, 3)


def test_records_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Proposals(lengths=torch.tensor([3])).lengths = None  # type: ignore[misc]


def test_rows_may_be_repeated() -> None:
    record = Encoded(keys=torch.tensor([5, 6]), is_empty=torch.tensor([True, False]))
    assert record.select(torch.arange(6) // 3).keys.tolist() == [5, 5, 5, 6, 6, 6]


@dataclass(frozen=True, kw_only=True)
class Holder(Rows):
    held: Any


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@pytest.mark.parametrize(
    "held", [[torch.arange(2)], {"a": torch.arange(2)}, {1}, Pair(torch.arange(2), torch.arange(2)), object(), range(2)]
)
def test_a_container_whose_rows_would_not_be_selected_is_refused(held: Any) -> None:
    """A cache held in a list would go on with the rows of other sentences."""
    with pytest.raises(TypeError, match=f"cannot hold a {type(held).__name__}"):
        Holder(held=(held,)).select(torch.tensor([0]))


@pytest.mark.parametrize("held", [None, True, 3, 0.5, "text", (1, "a", None)])
def test_plain_values_belong_to_the_whole_batch(held: Any) -> None:
    assert Holder(held=held).select(torch.tensor([0])).held == held


def test_a_usage_error_is_an_error_like_others_to_a_caller_in_python() -> None:
    with pytest.raises(Exception) as raised:  # noqa: B017
        raise UsageError("say --this instead")
    assert str(raised.value) == "say --this instead" and not isinstance(raised.value, SystemExit)
