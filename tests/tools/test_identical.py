"""Whether what was drafted and verified is what greedy search gives, in the rows and tables of a run."""

from types import SimpleNamespace
from typing import Any, List, Optional

import pytest

from nar_tools.measure import runs, tables

GREEDY = ["a house", "two dogs", "a cat", "rain"]


def worker(search: Optional[str], is_verified: bool) -> Any:
    return SimpleNamespace(entrant=SimpleNamespace(search=search), facts={"is_verified": is_verified})


@pytest.mark.parametrize(
    ("said", "share", "told"),
    [(GREEDY, 100.0, "yes"), (["a house", "two cats", "a cat", "rain"], 75.0, "75.00%"), (["x"] * 4, 0.0, "0.00%")],
)
def test_sentences_of_drafts_are_held_against_greedy_search(said: List[str], share: float, told: str) -> None:
    workers = [worker("greedy", False), worker("beam5", False), worker(None, True), worker(None, False)]
    found = runs.as_greedy(workers, [GREEDY, GREEDY, said, said])
    assert found == [None, None, share, None]
    assert tables.identical({"as_greedy": share}) == told


def test_without_greedy_search_in_the_run_nothing_is_said() -> None:
    assert runs.as_greedy([worker("beam5", False), worker(None, True)], [GREEDY, GREEDY]) == [None, None]
    assert tables.identical({"as_greedy": None}) == tables.UNKNOWN
