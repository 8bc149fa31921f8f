"""Simulated acceptance under the clock: calls, work, what is refused."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nar_plugin.compat import CachedTransformer
from nar_plugin.generators import speculative
from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.methods.options import DraftedSentences
from nar_tools.commands import benchmark
from nar_tools.errors import ToolError
from nar_tools.measure import entrants, results, runs, served, tables
from nar_tools.measure.simulated import simulate
from tests.tiny import EOS, SYMBOLS, random_rows, sample_of, texts, tiny_blockwise, tiny_model, tiny_transformer
from tests.tools.rows import forced, row

LENGTH = 13
FORCED = {"min_len": LENGTH, "max_len_a": 0.0, "max_len_b": LENGTH}
SOURCES = random_rows(6, 9, seed=3)


def with_heads(heads: int = 8) -> Any:
    return tiny_blockwise(block_heads=heads).eval()


def with_sentences() -> Any:
    verifier, writer = CachedTransformer(tiny_transformer(), SYMBOLS), tiny_model(arch="mask_predict_tiny")
    return speculative.by_sentences("t", verifier, writer, SYMBOLS, DraftedSentences())


def with_steps() -> Any:
    verifier, small = (CachedTransformer(tiny_transformer(seed=seed), SYMBOLS) for seed in (1, 2))
    return speculative.by_steps("t", verifier, small, SYMBOLS)


def decoded(model: Any, tokens: int | None, **options: Any) -> tuple[Any, RefinementGenerator]:
    generator = RefinementGenerator(model, SYMBOLS, model.decode_options(**{**FORCED, **options}))
    if tokens is not None:
        simulate(generator, tokens)
    return generator.generate([], sample_of(SOURCES)), generator


DRAFTED = {"heads": (with_heads, 1), "sentences": (with_sentences, 0), "steps": (with_steps, 0)}
"""And how many tokens the first call gives by itself, before anything is drafted."""


@pytest.mark.parametrize("tokens", [1, 2, 4, 6])
@pytest.mark.parametrize("kind", DRAFTED)
def test_every_call_gives_so_many_tokens(kind: str, tokens: int) -> None:
    """BPD-37: of untrained models, whoever drafts; the last call what is left."""
    make, first = DRAFTED[kind]
    found, generator = decoded(make(), tokens)
    assert [len(text) for text in texts(found)] == [LENGTH + 1] * len(SOURCES)
    assert all(text[-1] == EOS and EOS not in text[:-1] for text in texts(found))
    assert generator.counters.calls["decoder"] == first + math.ceil((LENGTH + 1 - first) / tokens)


def test_a_call_does_the_work_of_all_drafts() -> None:
    """BPD-37: eight heads are computed and eight tokens read, however few are accepted."""
    model, read = with_heads(), list[int]()
    model.passes["extend"].module.register_forward_hook(lambda module, given, out: read.append(given[0].size(1)))
    decoded(model, 2)
    assert read == [1, *[8] * 7]


def test_without_simulation_the_same_model_is_as_it_was() -> None:
    """BPD-37: it holds for one generator's model, which a clock has in a process of its own."""
    one, other = (decoded(with_heads(), None)[0] for _ in range(2))
    assert texts(one) == texts(other) != texts(decoded(with_heads(), 6)[0])


@pytest.mark.parametrize(
    ("make", "tokens", "options", "complaint"),
    [
        (lambda: with_heads(4), 6, {}, "--simulate-acceptance 6: a call gives 4 tokens at most"),
        (with_steps, 6, {"draft_length": 3}, "--simulate-acceptance 6: a call gives 4 tokens at most"),
        (with_heads, 2, {"sampling": True}, "not beside --sampling"),
        (lambda: tiny_model(arch="mask_predict_tiny"), 2, {}, "nothing is drafted here"),
    ],
)
def test_what_cannot_be_simulated_is_refused(make: Any, tokens: int, options: Any, complaint: str) -> None:
    """BPD-37."""
    model = make()
    with pytest.raises(ToolError, match=complaint):
        if hasattr(model, "speculation"):
            decoded(model, tokens, **options)
        else:
            simulate(SimpleNamespace(model=model), tokens)


def test_fairseqs_own_search_has_nothing_to_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    """BPD-37."""
    monkeypatch.setattr(served, "Timed", lambda argv: SimpleNamespace(generator=object()))
    with pytest.raises(ToolError, match="nothing is drafted here"):
        served.system_of([], "eager", 4)
    served.system_of([], "eager")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--simulate-acceptance 0", "a: --simulate-acceptance 0: it needs 1 or more"),
        ("--simulate-acceptance x", "a: argument --simulate-acceptance: invalid int value: 'x'"),
        ("--simulate-acceptance 2 --engine ctranslate2-int8", "not with --engine ctranslate2-int8"),
    ],
)
def test_wrong_numbers_are_refused(flags: str, complaint: str) -> None:
    with pytest.raises(ToolError, match=complaint):
        entrants.entrant_of("a", flags)


def test_words_that_mean_nothing_are_not_scored(tmp_path: Any) -> None:
    """BPD-37: it is for forced lengths alone, and a row with scores cannot say it."""
    words = ["bin", "--reference", "test.en", "--output", str(tmp_path / "r.json")]
    args = benchmark.parse([*words, "--system", "a", "--path a.pt --simulate-acceptance 4"])
    with pytest.raises(ToolError, match="a: --simulate-acceptance is for --forced-length alone"):
        benchmark.measured(args, [])
    results.check(forced("a", 10, simulated=4))
    with pytest.raises(ToolError, match="row a: acceptance is simulated at forced lengths alone"):
        results.check(row("a", simulated=4))


def test_rows_and_tables_say_that_acceptance_was_simulated() -> None:
    """BPD-37."""
    entrant = entrants.entrant_of("bpd-a4", "--path a.pt --simulate-acceptance 4")
    assert entrant.simulated == 4 and entrant.flags == "--path a.pt"
    facts = dict.fromkeys("arch size width device updates epochs seed".split())
    worker: Any = SimpleNamespace(entrant=entrant, facts=facts)
    assert runs.row_of(worker, {}, {})["simulated"] == 4
    said = tables.table([forced("bpd-a4", 24, simulated=4, passes=6.25), forced("ar-greedy", 24, passes=25)])
    assert "simulated: every call was made to give so many tokens; the words mean nothing" in said
    lines = [line.split() for line in said.splitlines()]
    assert lines[1][:5] == ["system", "simulated", "passes", "tokens", "a"]
    assert lines[2][1:4] == ["4", "6.2", "4.00"] and lines[3][1:4] == ["-", "25.0", "1.00"]
    assert "simulated" not in tables.table([forced("ar-greedy", 24, passes=25)])


@torch.no_grad()
def test_a_sentence_of_the_forced_length_is_drafted() -> None:
    """BPD-37: what an untrained model says of lengths would decide how many tokens it offers."""
    model = with_sentences()
    generator = RefinementGenerator(model, SYMBOLS, model.decode_options(**FORCED))
    simulate(generator, 4)
    encoded = model.encode(sample_of(SOURCES)["net_input"])
    sentences = model.speculation.drafter.writer.sentences(encoded.told)
    assert sentences.size(1) == LENGTH + 1


def test_a_drafter_that_ends_early_offers_as_much() -> None:
    """BPD-37: what it writes is filled up, and no word of it ends the sentence."""
    model = with_sentences()
    model.speculation.drafter.writer.sentences = lambda told: torch.tensor([[5, EOS, 6, EOS]] * len(SOURCES))
    found, generator = decoded(model, 4)
    assert generator.counters.calls["decoder"] == math.ceil((LENGTH + 1) / 4)
    assert all(EOS not in text[:-1] and len(text) == LENGTH + 1 for text in texts(found))
