"""What each rule masks next, held against a loop over positions that follows its definition.

``tests/test_mutations.py`` proves that these checks bite.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nar_plugin.methods import options, prediction, unmasking
from nar_plugin.methods.unmasking import GRID, RULES, Canvas

Values = list[float]
Places = set[int]


def steps_of(value: float) -> float:
    """On the grid on which the package compares."""
    return round(value / GRID) if math.isfinite(value) else value


def least_confident(confidence: Values, count: int) -> Places:
    return set(sorted(range(len(confidence)), key=lambda i: (steps_of(confidence[i]), i))[: max(1, count)])


def linear(confidence: Values, evidence: Values, masked: Places, value: float, step: int, passes: int) -> Places:
    return least_confident(confidence, math.floor(len(confidence) * (1 - step / passes) + 1e-9))


def cosine(confidence: Values, evidence: Values, masked: Places, value: float, step: int, passes: int) -> Places:
    return least_confident(confidence, math.floor(len(confidence) * math.cos(math.pi * step / (2 * passes)) + 1e-9))


def threshold(confidence: Values, evidence: Values, masked: Places, value: float, step: int, passes: int) -> Places:
    least = steps_of(math.log(value)) if value else -math.inf
    sure, best = set(), min(masked)
    for i in sorted(masked):
        if steps_of(confidence[i]) > least:
            sure.add(i)
        if steps_of(confidence[i]) >= steps_of(confidence[best]):  # of equals the leftmost stays masked
            best = i
    return masked - sure - {best}


def entropy(confidence: Values, evidence: Values, masked: Places, value: float, step: int, passes: int) -> Places:
    left, total, highest = set(masked), 0.0, 0.0
    for i in sorted(masked, key=lambda i: (steps_of(evidence[i]), -i)):
        total, highest = total + steps_of(evidence[i]), max(highest, steps_of(evidence[i]))
        if total - highest <= value / GRID:
            left.remove(i)
    return left


def gap(confidence: Values, evidence: Values, masked: Places, value: float, step: int, passes: int) -> Places:
    progress = step / passes
    least = 7.5 if progress < 1 / 3 - 1e-9 else 5.0 if progress < 2 / 3 - 1e-9 else 2.5
    if sum(map(steps_of, evidence)) / len(evidence) * GRID >= value * least:
        return set()
    return linear(confidence, evidence, masked, value, step, passes)


ORACLES: dict[str, Callable[..., Places]] = {
    "linear": linear,
    "cosine": cosine,
    "threshold": threshold,
    "entropy": entropy,
    "gap": gap,
}
VALUES = {
    "linear": [0.0],
    "cosine": [0.0],
    "threshold": [0.0, 0.3, 0.5, 0.9, 1.0],
    "entropy": [0.0, 0.25, 1.0, 4.0, 99.0],
    "gap": [0.0, 0.3, 0.6, 1.0, 1e30],
}
RULES_AND_VALUES = [(rule, value) for rule, values in VALUES.items() for value in values]
EVIDENCE_OF = {"entropy": 1.5, "gap": 9.0}
"""Its greatest values in these tests, by rule."""


def drawn(draw: random.Random, most: float, is_coarse: bool) -> float:
    """A number up to ``most``; coarse ones are often equal."""
    return draw.choice([0.0, 0.25, 0.5, 1.0]) * most if is_coarse else draw.random() * most


def rows_of(rule: str, seed: int, lengths: list[int], is_coarse: bool) -> list[tuple[Values, Values, Places]]:
    """Of each row its confidences, its evidence, and what the pass predicted: something always."""
    draw, rows = random.Random(seed), []
    for n in lengths:
        confidence = [-drawn(draw, 1.5, is_coarse) for _ in range(n)]
        evidence = [drawn(draw, EVIDENCE_OF.get(rule, 1.0), is_coarse) for _ in range(n)]
        rows.append((confidence, evidence, set(draw.sample(range(n), draw.randint(1, n)))))
    return rows


def canvas_of(rule: str, rows: list[tuple[Values, Values, Places]], step: int, passes: int) -> Canvas:
    width, most = max(len(row[0]) for row in rows), max(len(row[2]) for row in rows)
    lengths = torch.tensor([len(row[0]) for row in rows])
    is_token = torch.arange(width) < lengths[:, None]
    predicted = [[*places, *[min(places)] * (most - len(places))] for _, _, places in rows]

    def padded(index: int) -> Any:
        return torch.tensor([[*row[index], *[0.0] * (width - len(row[index]))] for row in rows])  # type: ignore[misc]

    return Canvas(
        confidence=padded(0),
        evidence=padded(1) if RULES[rule].measure else None,
        predicted=torch.tensor(predicted),
        lengths=lengths,
        is_token=None if bool(is_token.all()) else is_token,
        step=step,
        passes=passes,
    )


def masked_next(rule: str, canvas: Canvas, value: float) -> list[Places]:
    """What a rule masks, a row a set; empty where it says that the row is done."""
    places, done = RULES[rule].masks(canvas, value)
    found = []
    for row, is_done in zip(places.tolist(), [False] * len(places) if done is None else done.tolist(), strict=True):
        count = len(set(row))
        assert row[count:] == [row[0]] * (len(row) - count), "a row repeats its first position alone"
        found.append(set() if is_done else set(row))
    return found


def test_every_rule_is_here() -> None:
    assert tuple(RULES) == options.UNMASKINGS == tuple(ORACLES) == tuple(VALUES)
    assert {rule for rule, (_, measure) in RULES.items() if measure} == set(EVIDENCE_OF)
    assert set(options.UNMASK_THRESHOLDS) == {rule for rule, values in VALUES.items() if len(values) > 1}


def differences(rule: str, value: float, is_coarse: bool = False) -> list[tuple[Places, Places]]:
    """Where a rule and its definition disagree: random rows of equal and of different lengths, at every pass."""
    found = []
    for seed, (passes, lengths) in enumerate([(2, [7] * 5), (4, list(range(1, 13))), (10, [12, 3, 1, 9]), (3, [1])]):
        for step in range(1, passes):
            rows = rows_of(rule, 100 * seed + step, lengths, is_coarse)
            seen = masked_next(rule, canvas_of(rule, rows, step, passes), value)
            wanted = [ORACLES[rule](*row, value, step, passes) for row in rows]
            found += [pair for pair in zip(seen, wanted, strict=True) if pair[0] != pair[1]]
    return found


@pytest.mark.parametrize("is_coarse", [False, True])
@pytest.mark.parametrize(("rule", "value"), RULES_AND_VALUES)
def test_a_rule_masks_what_its_definition_says(rule: str, value: float, is_coarse: bool) -> None:
    """CMLM-22: position by position, for rows of any lengths, with equal values and without."""
    assert differences(rule, value, is_coarse) == []


@pytest.mark.parametrize("rule", RULES)
def test_a_row_is_masked_as_it_would_be_alone(rule: str) -> None:
    """CMLM-22: wider rows beside it change nothing."""
    rows, value = rows_of(rule, 7, [5, 12, 1, 8], False), VALUES[rule][len(VALUES[rule]) // 2]
    together = masked_next(rule, canvas_of(rule, rows, 2, 4), value)
    assert together == [masked_next(rule, canvas_of(rule, [row], 2, 4), value)[0] for row in rows]


@pytest.mark.parametrize("rule", RULES)
def test_after_the_first_pass_all_words_are_those_it_predicted(rule: str) -> None:
    rows = [
        (confidence, evidence, set(range(len(confidence))))
        for confidence, evidence, _ in rows_of(rule, 3, [6, 4], False)
    ]
    canvas, value = canvas_of(rule, rows, 1, 4), VALUES[rule][-1]
    for some in (canvas, canvas_of(rule, rows[:1], 1, 4)):
        assert masked_next(rule, some._replace(predicted=None), value) == masked_next(rule, some, value)


def counts_until_done(rule: str, value: float, confidence: Values, evidence: Values) -> list[int]:
    """How many words each pass masks, where every pass predicts the same again."""
    left, counts = set(range(len(confidence))), []
    while left and len(counts) <= len(confidence):
        counts.append(len(left))
        (left,) = masked_next(rule, canvas_of(rule, [(confidence, evidence, left)], 1, 99), value)
    return counts


@pytest.mark.parametrize("confidence", [[-0.5, -0.1, -2.0, -0.1], [0.0, -1e-7, 0.0, -2e-7]])
def test_a_threshold_of_one_commits_a_word_a_pass_and_one_of_zero_all(confidence: Values) -> None:
    """CMLM-24: also where every word is as good as certain."""
    assert counts_until_done("threshold", 1.0, confidence, confidence) == [4, 3, 2, 1]
    assert counts_until_done("threshold", 0.0, confidence, confidence) == [4]


def test_without_entropy_to_spend_a_word_is_committed_a_pass_or_those_that_are_certain() -> None:
    """CMLM-24: noise of arithmetic is no entropy."""
    assert counts_until_done("entropy", 0.0, [-1.0] * 4, [0.5, 0.25, 0.75, 0.25]) == [4, 3, 2, 1]
    assert counts_until_done("entropy", 0.0, [-1.0] * 4, [0.5, 0.0, 0.75, 1e-7]) == [4, 1]
    assert counts_until_done("entropy", 99.0, [-1.0] * 4, [0.5, 0.25, 0.75, 0.25]) == [4]


def test_entropy_is_spent_on_all_words_of_a_pass_but_the_last() -> None:
    """CMLM-22: Σ H − max H, so that the one which exceeds what is left is committed too."""
    assert counts_until_done("entropy", 0.5, [-1.0] * 4, [0.25, 0.25, 9.0, 9.0]) == [4, 1]
    assert counts_until_done("entropy", 0.4, [-1.0] * 4, [0.25, 0.25, 9.0, 9.0]) == [4, 2, 1]


def test_a_gap_ends_a_row_where_its_words_lead_on_average() -> None:
    """CMLM-22: by 7.5, from a third of the passes on 5, from two thirds on 2.5."""
    for passes, needed in ((3, [5.0, 2.5]), (6, [7.5, 5.0, 5.0, 2.5, 2.5]), (2, [5.0])):
        for step, least in enumerate(needed, 1):
            for lead, is_done in ((least, True), (least - 0.01, False)):
                rows = [([-1.0, -2.0], [lead - 1, lead + 1], {0})]
                assert (masked_next("gap", canvas_of("gap", rows, step, passes), 1.0) == [set()]) == is_done


def test_a_gap_that_is_never_reached_is_linear_and_none_is_the_end() -> None:
    """CMLM-24: a huge factor, and 0."""
    rows = rows_of("gap", 5, [4, 9, 1], False)
    plain = masked_next("linear", canvas_of("linear", rows, 2, 5), 0.0)
    assert masked_next("gap", canvas_of("gap", rows, 2, 5), 1e30) == plain
    assert masked_next("gap", canvas_of("gap", rows, 2, 5), 0.0) == [set()] * 3


def test_a_cosine_schedule_commits_little_at_first() -> None:
    """CMLM-22: ⌊N cos(πt / 2T)⌋, also where the cosine is a half and the product a whole number."""
    for passes in range(2, 21):
        for step in range(1, passes):
            for n in range(1, 60):
                expected = math.floor(n * math.cos(math.pi * step / (2 * passes)) + 1e-9)
                assert unmasking.cosine_count(n, step, passes) == expected
                assert int(unmasking.cosine_count(torch.tensor(n), step, passes)) == expected
    assert [unmasking.cosine_count(10, step, 3) for step in (1, 2)] == [8, 5]
    assert [unmasking.linear_count(10, step, 3) for step in (1, 2)] == [6, 3]


def test_evidence_is_what_its_name_says() -> None:
    """CMLM-22: entropies in nats, and the lead of the best word; words that may not be given have no part in either."""
    logits = torch.randn(3, 5, 300, generator=torch.Generator().manual_seed(1)) * 3
    log_probs = prediction.log_probs_of(logits, (1, 7))
    best = log_probs.argmax(-1)
    entropies = RULES["entropy"].measure(log_probs.clone(), best)  # type: ignore[misc]
    leads = RULES["gap"].measure(log_probs.clone(), best)  # type: ignore[misc]
    for i in range(3):
        for j in range(5):
            words = [x for x in log_probs[i, j].tolist() if x > -math.inf]
            assert len(words) == 298
            assert float(entropies[i, j]) == pytest.approx(-sum(math.exp(x) * x for x in words), abs=1e-4)
            first, second = sorted(words, reverse=True)[:2]
            assert float(leads[i, j]) == pytest.approx(first - second, abs=1e-5)
