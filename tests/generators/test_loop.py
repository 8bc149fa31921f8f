"""The refinement loop, proven by methods that are as unlike as those that will come."""

from typing import Any

import pytest
import torch

from nar_plugin.generators.candidates import Teacher
from nar_plugin.generators.loop import LIVE_SHARE, RefinementGenerator
from nar_plugin.generators.reference import ReferenceScorer
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.symbols import collapsed
from tests import tiny
from tests.generators import stubs
from tests.generators.stubs import ConsumingStub, DraftStub, LatentStub, SettlingStub, TableStub, UnigramTeacher
from tests.tiny import EOS, FIRST_WORD, PAD, SYMBOLS, decode, random_rows, sample_of, texts, tiny_model

SOURCES = random_rows(17, 6, seed=31)
A, B, C, X, Y = range(FIRST_WORD, FIRST_WORD + 5)


def lines(hypotheses: list[list[dict[str, Any]]]) -> list[list[tuple[Any, ...]]]:
    """All that a hypothesis says, comparable."""
    return [
        [
            (
                h["tokens"].tolist(),
                h["positional_scores"].tolist(),
                round(float(h["score"]), 5),  # a sum over another width of padding may differ in its last bit
                h["steps"],
                [(past["tokens"].tolist(), past["positional_scores"].tolist()) for past in h["history"]],
            )
            for h in group
        ]
        for group in hypotheses
    ]


# --- states without tokens, and of changing width


@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_a_state_may_hold_a_latent_and_no_tokens(iterations: int) -> None:
    stub = LatentStub()
    hypotheses = decode(stub, sample_of(SOURCES), iterations=iterations)
    assert texts(hypotheses) == [stubs.latent_text(source, iterations) for source in SOURCES]
    assert {group[0]["steps"] for group in hypotheses} == {iterations}
    assert stub.seen == [SOURCES] * (iterations + 1)
    for group in hypotheses:
        n = len(group[0]["tokens"])
        assert group[0]["positional_scores"].tolist() == pytest.approx([-0.1 * (i + 1) for i in range(n)])


def test_lengths_may_change_from_step_to_step() -> None:
    hypotheses = decode(LatentStub(), sample_of(SOURCES), iterations=5, keep_history=True)
    widths = [{len(past["tokens"]) for past in group[0]["history"]} for group in hypotheses]
    assert all(len(some) > 1 for some in widths)
    for source, group in zip(SOURCES, hypotheses, strict=True):
        past = [step["tokens"].tolist() for step in group[0]["history"]]
        assert past == [stubs.latent_text(source, steps) for steps in range(6)]


def test_history_lines_are_what_shorter_runs_give() -> None:
    sample = sample_of(SOURCES)
    full = decode(SettlingStub(), sample, iterations=6, keep_history=True, stop_rule="fixed-point")
    for steps in range(7):
        shorter = decode(SettlingStub(), sample, iterations=steps)
        for long, short in zip(full, shorter, strict=True):
            if steps <= long[0]["steps"]:
                past = long[0]["history"][steps]
                assert past["tokens"].tolist() == short[0]["tokens"].tolist()
                assert past["positional_scores"].tolist() == short[0]["positional_scores"].tolist()
    assert all(len(group[0]["history"]) == group[0]["steps"] + 1 for group in full)


def test_there_is_no_history_unless_asked_for() -> None:
    assert all(not group[0]["history"] for group in decode(LatentStub(), sample_of(SOURCES), iterations=2))


# --- rows that finish by themselves


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_drafts_give_exactly_what_the_verifier_says_word_by_word(size: int) -> None:
    stub = DraftStub(size)
    hypotheses = decode(stub, sample_of(SOURCES))
    expected = [stubs.sequential(source) for source in SOURCES]
    assert texts(hypotheses) == expected
    passes = [group[0]["steps"] + 1 for group in hypotheses]
    assert passes == [stubs.rounds_needed(source, size) for source in SOURCES]
    if size == 1:
        assert passes == [len(row) for row in expected]
    else:
        assert all(n <= len(row) for n, row in zip(passes, expected, strict=True))
        assert sum(passes) < 0.75 * sum(map(len, expected)) and len(set(passes)) > 2


def rows_of_passes(needed: list[int]) -> list[list[int]]:
    """Which rows each pass works on where row i ends with pass ``needed[i]``: many finished rows leave together."""
    rows, passes = list(range(len(needed))), []
    while True:
        passes.append(rows)
        live = [i for i in rows if needed[i] > len(passes)]
        if not live:
            return passes
        rows = live if len(live) < LIVE_SHARE * len(rows) else rows


def test_finished_rows_leave_the_batch_when_fewer_than_three_quarters_are_live() -> None:
    stub = DraftStub(4)
    hypotheses = decode(stub, sample_of(SOURCES))
    needed = [stubs.rounds_needed(source, 4) for source in SOURCES]
    assert stub.seen == [[SOURCES[i] for i in rows] for rows in rows_of_passes(needed)]
    assert len({len(rows) for rows in stub.seen}) > 2, "the batch becomes smaller more than once"
    assert any(needed[i] <= passed for passed, rows in enumerate(rows_of_passes(needed)) for i in rows), "not at once"
    assert len(stub.seen) == max(needed) and [g[0]["steps"] for g in hypotheses] == [n - 1 for n in needed]


def test_the_history_of_a_finished_row_ends_with_its_last_step() -> None:
    for source, group in zip(SOURCES, decode(DraftStub(3), sample_of(SOURCES), keep_history=True), strict=True):
        past = [step["tokens"].tolist() for step in group[0]["history"]]
        prefixes = [stubs.one_round(source, [], 3)]
        while prefixes[-1][-1] != EOS:
            prefixes.append(stubs.one_round(source, prefixes[-1], 3))
        assert past == prefixes


@pytest.mark.parametrize("stub", [LatentStub, DraftStub, SettlingStub])
def test_a_hypothesis_of_any_method_does_not_depend_on_its_batch(stub: Any) -> None:
    options = {"iterations": 3, "lengths": 3, "nbest": 3, "keep_history": True}
    together = lines(decode(stub(), sample_of(SOURCES), **options))
    alone = [lines(decode(stub(), sample_of([source], is_left=True), **options))[0] for source in SOURCES]
    backwards = lines(decode(stub(), sample_of(SOURCES[::-1], is_left=True), **options))[::-1]
    assert together == alone == backwards


# --- stopping


def test_a_row_stops_where_a_pass_changes_nothing() -> None:
    stub = SettlingStub()
    hypotheses = decode(stub, sample_of(SOURCES), iterations=12, stop_rule="fixed-point")
    levels = [stubs.settles_after(source) for source in SOURCES]
    steps = [min(12, level + 1) for level in levels]
    assert min(levels) < 5 < 12 <= max(levels), "rows of many kinds"
    assert [group[0]["steps"] for group in hypotheses] == steps
    assert texts(hypotheses) == [stubs.settling_text(source, 12) for source in SOURCES]
    assert stub.seen == [[SOURCES[i] for i in rows] for rows in rows_of_passes([n + 1 for n in steps])]


def test_a_row_ends_by_the_rule_or_by_the_method_whichever_comes_first() -> None:
    """Drafts never repeat a pass, so that no rule would end them: the method's own ``done`` must still be heeded."""
    with_rule = decode(DraftStub(4), sample_of(SOURCES), stop_rule="fixed-point")
    assert lines(with_rule) == lines(decode(DraftStub(4), sample_of(SOURCES)))


def test_without_a_rule_every_row_is_refined_to_the_end() -> None:
    stub = SettlingStub()
    hypotheses = decode(stub, sample_of(SOURCES), iterations=12)
    assert {group[0]["steps"] for group in hypotheses} == {12} and stub.seen == [SOURCES] * 13
    assert texts(hypotheses) == [stubs.settling_text(source, 12) for source in SOURCES]


def test_a_method_that_consumes_its_state_is_not_stopped_too_early() -> None:
    """The contract lets ``refine`` write into its argument; the rule must still see what stood there before."""
    hypotheses = decode(ConsumingStub(), sample_of(SOURCES), iterations=30, stop_rule="fixed-point")
    assert texts(hypotheses) == [[source[0]] for source in SOURCES]
    assert [group[0]["steps"] for group in hypotheses] == [stubs.settles_after(source) + 1 for source in SOURCES]


def test_the_history_of_a_method_that_consumes_its_state_keeps_every_step() -> None:
    hypotheses = decode(ConsumingStub(), sample_of(SOURCES), iterations=4, keep_history=True)
    for source, group in zip(SOURCES, hypotheses, strict=True):
        past = [step["tokens"].tolist() for step in group[0]["history"]]
        assert past == [[FIRST_WORD + min(step, stubs.settles_after(source))] for step in range(5)]


# --- candidates


@pytest.mark.parametrize("limit", [1, 7, 40, 10000])
@pytest.mark.parametrize("stub", [LatentStub, DraftStub, SettlingStub])
def test_the_limit_of_candidate_tokens_changes_no_result(stub: Any, limit: int) -> None:
    options = {"iterations": 4, "lengths": 3, "nbest": 2, "keep_history": True, "stop_rule": "none"}
    if stub is SettlingStub:
        options["stop_rule"] = "fixed-point"
    whole = decode(stub(), sample_of(SOURCES), **options)
    assert lines(decode(stub(), sample_of(SOURCES), max_candidate_tokens=limit, **options)) == lines(whole)


@pytest.mark.parametrize("limit", [1, 100, 333])
def test_the_limit_of_candidate_tokens_changes_nothing_for_mask_predict(limit: int) -> None:
    model, options = tiny_model(), {"iterations": 3, "lengths": 3, "nbest": 3}
    whole = decode(model, sample_of(SOURCES), **options)
    cut = decode(model, sample_of(SOURCES), max_candidate_tokens=limit, **options)
    for a, b in zip(whole, cut, strict=True):
        assert [h["tokens"].tolist() for h in a] == [h["tokens"].tolist() for h in b]
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x["positional_scores"], y["positional_scores"], atol=1e-4, rtol=1e-4)


def test_no_run_holds_more_candidate_tokens_than_the_limit() -> None:
    model, widths = tiny_model(), []
    model.decoder.register_forward_hook(lambda _, inputs, __: widths.append(inputs[0].shape[:2]))
    decode(model, sample_of(SOURCES), lengths=3, max_candidate_tokens=200)
    assert all(rows * width <= 200 for rows, width in widths) and len(widths) > 3
    assert sum(rows for rows, _ in widths) == 3 * len(SOURCES)


def test_start_zero_is_the_deterministic_one() -> None:
    """It is decoded whatever the number of candidates and the seed; the others follow the seed."""
    of_seed = {}
    for seed in (1, 2):
        stub = LatentStub()
        starts = []
        propose = stub.propose
        stub.propose = lambda *a, propose=propose, starts=starts, **k: starts.append(propose(*a, **k)) or starts[-1]
        decode(stub, sample_of(SOURCES), lengths=4, seed=seed)
        of_seed[seed] = starts[0].offset.view(-1, 4)
    assert not of_seed[1][:, 0].any() and not of_seed[2][:, 0].any()
    assert bool((of_seed[1][:, 1:] != of_seed[2][:, 1:]).any(1).all())


def table(*candidates: tuple[list[int], list[float]]) -> TableStub:
    return TableStub({X: list(candidates), Y: list(candidates)[::-1]})


def test_the_n_best_come_best_first() -> None:
    stub = table(([A, EOS], [-3.0, -1.0]), ([B, EOS], [-0.5, -0.5]), ([C, C, EOS], [-1.0, -0.5, -1.5]))
    for nbest in (1, 2, 3):
        first, second = decode(stub, sample_of([[X], [Y]]), lengths=3, nbest=nbest)
        assert [h["tokens"].tolist() for h in first] == [[B, EOS], [C, C, EOS], [A, EOS]][:nbest]
        assert [h["tokens"].tolist() for h in second] == [[B, EOS], [C, C, EOS], [A, EOS]][:nbest]
        assert [float(h["score"]) for h in first] == [-0.5, -1.0, -2.0][:nbest]


def test_of_equal_candidates_the_first_proposed_wins() -> None:
    stub = table(([A, EOS], [-2.0, -2.0]), ([B, EOS], [-1.0, -1.0]), ([C, C, EOS], [-1.0, -1.0, -1.0]))
    first, second = decode(stub, sample_of([[X], [Y]]), lengths=3, nbest=3)
    assert [h["tokens"].tolist() for h in first] == [[B, EOS], [C, C, EOS], [A, EOS]]
    assert [h["tokens"].tolist() for h in second] == [[C, C, EOS], [B, EOS], [A, EOS]]


SHORT, MIDDLE, LONG = [A, EOS], [B] * 4 + [EOS], [C] * 9 + [EOS]
COSTS = {A: -1.5, B: -0.875, C: -7 / 9, EOS: -0.5}
"""Sums -2.0, -4.0, -7.5 over 2, 5, 10 tokens: the best by sum, by length^0.9 and by mean are three different ones."""
WINNERS = [("sum", 1.0, SHORT, -2.0), ("lenpen", 0.9, MIDDLE, -4 / 5**0.9), ("mean", 1.0, LONG, -0.75)]


@pytest.mark.parametrize(("norm", "lenpen", "winner", "score"), WINNERS)
def test_candidates_are_compared_as_asked(norm: str, lenpen: float, winner: list[int], score: float) -> None:
    stub = table(*((text, [COSTS[t] for t in text]) for text in (SHORT, MIDDLE, LONG)))
    for group in decode(stub, sample_of([[X], [Y]]), lengths=3, rescore_norm=norm, lenpen=lenpen):
        assert group[0]["tokens"].tolist() == winner and float(group[0]["score"]) == pytest.approx(score, abs=1e-6)


@torch.no_grad()
def rescored(stub: TableStub, teacher: UnigramTeacher, sources: list[list[int]], **options: Any) -> Any:
    judge = Teacher(teacher, SYMBOLS)
    generator = RefinementGenerator(stub, SYMBOLS, tiny.options_of(stub, **options), teacher=judge)
    return generator.generate([stub], sample_of(sources, is_left=True))


@pytest.mark.parametrize(("norm", "lenpen", "winner", "score"), WINNERS)
def test_a_teacher_chooses_by_its_own_log_probabilities(
    norm: str, lenpen: float, winner: list[int], score: float
) -> None:
    """The student would choose otherwise: it gives every candidate but the winner the better score."""
    own = [(text, [-9.0 if text == winner else -0.1] * len(text)) for text in (SHORT, MIDDLE, LONG)]
    groups = rescored(
        table(*own), UnigramTeacher({X: COSTS, Y: COSTS}), [[X], [Y, A]], lengths=3, rescore_norm=norm, lenpen=lenpen
    )
    for group in groups:
        assert group[0]["tokens"].tolist() == winner and float(group[0]["score"]) == pytest.approx(score, abs=1e-6)
        assert group[0]["positional_scores"].tolist() == pytest.approx([-9.0] * len(winner))


def test_a_teacher_scores_each_source_with_its_own_probabilities() -> None:
    stub = TableStub(
        {X: [([A, EOS], [-1.0, -1.0]), ([B, EOS], [-2.0, -2.0])]}
        | {Y: [([A, EOS], [-1.0, -1.0]), ([B, EOS], [-2.0, -2.0])]}
    )
    teacher = UnigramTeacher({X: {A: -1.0, B: -2.0, EOS: 0.0}, Y: {A: -4.0, B: -3.0, EOS: 0.0}})
    groups = rescored(stub, teacher, [[X], [Y]], lengths=2, nbest=2, rescore_norm="sum")
    assert [[float(h["score"]) for h in group] for group in groups] == [[-1.0, -2.0], [-3.0, -4.0]]
    assert texts(groups) == [[A, EOS], [B, EOS]] and teacher.encoder_calls == 1


def test_a_teacher_reads_the_text_with_one_end_and_once() -> None:
    """A candidate without ``</s>``, or with one in its middle, is scored as the text that is printed: here the same."""
    stub = TableStub({X: [([A, B], [-1.0, -1.0]), ([A, EOS, B, EOS], [-2.0] * 4)]})
    teacher = UnigramTeacher({X: {A: -1.0, B: -2.0, EOS: -0.25}})
    group = rescored(stub, teacher, [[X]], lengths=2, nbest=2, rescore_norm="sum")[0]
    assert [float(h["score"]) for h in group] == [-3.25, -3.25]
    assert [row.tolist() for row in teacher.inputs[0]] == [[EOS, A, B, PAD, PAD]] and len(teacher.inputs) == 1


# --- the edges


def test_an_empty_source_gives_the_empty_hypothesis() -> None:
    for stub in (LatentStub(), SettlingStub(), tiny_model()):
        sources = [[5, 6], [], [7]]
        if isinstance(stub, SettlingStub):
            stub.after = lambda source, step: stubs.SettlingState(tokens=source, source=source)
        groups = decode(stub, sample_of(sources), iterations=2, lengths=2, nbest=2, keep_history=True)
        for hypothesis in groups[1]:
            assert hypothesis["tokens"].tolist() == [EOS] and hypothesis["steps"] == 0 and not hypothesis["history"]
            assert hypothesis["positional_scores"].tolist() == [0.0] and float(hypothesis["score"]) == 0.0
        assert [len(group) for group in groups] == [2, 2, 2] and groups[0][0]["steps"] == groups[2][0]["steps"] == 2


def test_a_batch_of_empty_sources_is_answered() -> None:
    assert texts(decode(tiny_model(), sample_of([[], []]), iterations=2)) == [[EOS], [EOS]]


def test_repeats_are_collapsed_when_asked() -> None:
    stub = table(([A, A, B, B, A, EOS], [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]))
    plain, short = (decode(stub, sample_of([[X]]), collapse_repeats=flag)[0][0] for flag in (False, True))
    assert plain["tokens"].tolist() == [A, A, B, B, A, EOS]
    assert short["tokens"].tolist() == [A, B, A, EOS]
    assert short["positional_scores"].tolist() == [-1.0, -3.0, -5.0, -6.0]


def test_to_say_a_word_twice_does_not_pay() -> None:
    """The best is chosen before repeats are dropped: else the sum of the second, without its repeats, would win."""
    stub = table(([A, B, EOS], [-1.0, -1.0, -1.0]), ([C, C, C, EOS], [-1.0, -1.0, -1.0, -1.0]))
    for flag in (False, True):
        (group,) = decode(stub, sample_of([[X]]), lengths=2, rescore_norm="sum", collapse_repeats=flag)
        assert group[0]["tokens"].tolist() == [A, B, EOS] and float(group[0]["score"]) == -3.0


def test_collapsing_is_that_of_the_symbols_for_any_model() -> None:
    model, sample = tiny_model(), sample_of(SOURCES)
    plain, short = (decode(model, sample, iterations=1, collapse_repeats=flag) for flag in (False, True))
    for a, b in zip(plain, short, strict=True):
        tokens, scores = collapsed(a[0]["tokens"][None], a[0]["positional_scores"][None], model.symbols)
        kept = tokens[0] != PAD
        assert torch.equal(b[0]["tokens"], tokens[0][kept])
        torch.testing.assert_close(b[0]["positional_scores"], scores[0][kept])
    assert texts(plain) != texts(short)


def test_gold_lengths_need_references() -> None:
    with pytest.raises(UsageError, match="--gold-target-len needs references"):
        decode(tiny_model(), sample_of(SOURCES), gold_target_len=True)


@pytest.mark.parametrize("extra", [{"prefix_tokens": torch.zeros(1, 1)}, {"constraints": torch.zeros(1, 1)}])
def test_prefixes_and_constraints_are_refused(extra: dict[str, Any]) -> None:
    model = tiny_model()
    generator = RefinementGenerator(model, SYMBOLS, tiny.options_of(model))
    with pytest.raises(UsageError, match="--prefix-size and --constraints"):
        generator.generate([model], sample_of(SOURCES), **extra)


def test_the_host_may_divide_the_scores_in_place() -> None:
    first, second = decode(table(([A, EOS], [-1.0, -2.0])), sample_of([[X], [X]]), lengths=1)
    first[0]["positional_scores"].div_(2)
    assert second[0]["positional_scores"].tolist() == [-1.0, -2.0] and float(first[0]["score"]) == -1.5


def test_every_hypothesis_has_what_fairseqs_printer_reads() -> None:
    for group in decode(tiny_model(), sample_of(SOURCES), iterations=1):
        assert {"tokens", "score", "positional_scores", "alignment", "steps", "history"} <= set(group[0])
        assert float(group[0]["score"]) == pytest.approx(float(group[0]["positional_scores"].mean()), abs=1e-6)


# --- references instead of a decode


@torch.no_grad()
@pytest.mark.parametrize("norm", ["sum", "mean", "lenpen"])
def test_references_are_scored_in_their_order(norm: str) -> None:
    model, targets = tiny_model(), random_rows(17, 7, seed=41)
    sample = sample_of(SOURCES, targets)
    scorer = ReferenceScorer(model, SYMBOLS, tiny.options_of(model, rescore_norm=norm, lenpen=0.5))
    groups = scorer.generate([model], sample)
    scored = model.score(model.encode(sample["net_input"]), sample["target"])
    for i, (target, group) in enumerate(zip(targets, groups, strict=True)):
        n, total = len(target) + 1, float(scored.tokens[i].sum() + scored.extra[i])
        assert group[0]["tokens"].tolist() == [*target, EOS] and group[0]["kind"] == "exact"
        torch.testing.assert_close(group[0]["positional_scores"], scored.tokens[i, :n])
        divisor = {"sum": 1.0, "mean": n, "lenpen": n**0.5}[norm]
        assert float(group[0]["score"]) == pytest.approx(total / divisor, rel=1e-5)


def test_scoring_references_needs_references() -> None:
    model = tiny_model()
    with pytest.raises(UsageError, match="--score-reference needs references"):
        ReferenceScorer(model, SYMBOLS, tiny.options_of(model)).generate([model], sample_of(SOURCES))
