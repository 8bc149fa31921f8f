"""``--engine``: what the networks are computed with."""

from typing import Any

import pytest

from nar_plugin.tasks import engines
from tests import tiny

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("mask_predict_tiny", {"iterations": 4, "lengths": 2}),
    ("iterative_refinement_tiny", {"iterations": 3}),
    ("lanmt_tiny", {"iterations": 2}),
    ("lanmt_tiny", {"iterations": 1, "decode_samples": 3}),
    ("lanmt_continuous_tiny", {"iterations": 2}),
    ("lanmt_refiner_tiny", {"iterations": 2}),
]
BATCHES = (1, 3, 64)


def in_batches(model: Any, rows: list[tiny.Row], size: int, **options: Any) -> list[Any]:
    cuts = [rows[first : first + size] for first in range(0, len(rows), size)]
    return [group for cut in cuts for group in tiny.decode(model, tiny.sample_of(cut), **options)]


@pytest.mark.parametrize("arch, options", MODELS)
def test_int8_gives_the_same_to_the_bit_in_batches_of_1_and_3_and_64(arch: str, options: dict[str, Any]) -> None:
    model = tiny.tiny_model(arch=arch, seed=5)
    engines.prepare([model], "int8")
    rows = tiny.random_rows(64, 30, seed=7)
    first, *others = ([group[0] for group in in_batches(model, rows, size, **options)] for size in BATCHES)
    assert len({tuple(one["tokens"].tolist()) for one in first}) > 20, (
        "they are nearly all alike, so this tests nothing"
    )
    for found in others:
        assert [one["tokens"].tolist() for one in found] == [one["tokens"].tolist() for one in first]
        scores = zip(found, first, strict=True)
        assert all(a["positional_scores"].equal(b["positional_scores"]) for a, b in scores)
