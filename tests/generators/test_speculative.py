"""Drafts of every kind, verified: what comes out is what fairseq's own search with a beam of one writes."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

from nar_plugin.compat import CachedTransformer
from nar_plugin.generators import speculative
from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.generators.speculative import DraftedModel
from nar_plugin.methods.contract import Rows, UsageError
from nar_plugin.methods.options import Drafted, DraftedSentences, DraftedSteps
from nar_plugin.methods.speculative import Draft, Drafting, Plan, SourceEncoded
from nar_plugin.tasks import engines
from tests.tiny import (
    EOS,
    PAD,
    SYMBOLS,
    WORDS,
    Row,
    assert_same,
    random_rows,
    sample_of,
    stand_in_task,
    texts,
    tiny_model,
    tiny_transformer,
)

DICTIONARY = stand_in_task().target_dictionary
LIMITS: dict[str, Any] = {"max_len_a": 1.5, "max_len_b": 8}
SOURCES = random_rows(24, 9, seed=4)


def greedy(model: Any, sources: list[Row], **limits: Any) -> list[list[dict[str, Any]]]:
    """By fairseq's search with a beam of one."""
    generator = SequenceGenerator([model], DICTIONARY, beam_size=1, **{**LIMITS, **limits})
    return generator.generate([model], sample_of(sources))


def assert_greedy(found: list[list[dict[str, Any]]], expected: list[list[dict[str, Any]]]) -> None:
    """The same tokens and nearly the same scores, word by word and of the whole."""
    assert texts(found) == texts(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one[0]["positional_scores"], other[0]["positional_scores"], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one[0]["score"], other[0]["score"].cpu(), atol=1e-5, rtol=1e-4)


@dataclass(frozen=True, kw_only=True)
class Known(Rows):
    """``tokens``: (R, T) what is offered, place by place."""

    tokens: Tensor


class Prompter:
    """Offers what it was given for each sentence, from the place on that is reached."""

    def __init__(self, rows: list[Row]) -> None:
        width = max(map(len, rows))
        self.tokens = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])

    def begin(self, encoded: SourceEncoded, plan: Plan, keys: Tensor | None) -> Known:
        return Known(tokens=self.tokens)

    def draft(self, state: Drafting) -> Draft:
        places = state.count[:, None] + torch.arange(state.plan.drafts)
        width = state.kept.tokens.size(1)
        tokens = state.kept.tokens.gather(1, places.clamp(max=width - 1))
        is_token = (places < width) & (tokens != PAD)
        return Draft(tokens.masked_fill(~is_token, PAD), is_token, state.kept)


def wrong(rows: list[Row], share: float, seed: int = 5) -> list[Row]:
    """The rows with other words in place of a share of theirs; ``</s>`` may become a word, too."""
    generator = torch.Generator().manual_seed(seed)
    return [
        [
            4 + (word + 1 + int(torch.randint(0, WORDS - 1, (1,), generator=generator)) - 4) % WORDS
            if float(torch.rand(1, generator=generator)) < share
            else word
            for word in row
        ]
        for row in rows
    ]


def prompted(model: Any, rows: list[Row]) -> DraftedModel:
    return DraftedModel("transformer", CachedTransformer(model, SYMBOLS), Prompter(rows), SYMBOLS, DraftedSteps)


def decoded(model: DraftedModel, sources: list[Row], seed: int = 1, **options: Any) -> list[list[dict[str, Any]]]:
    return run(model, sources, seed, **options)[0]


def run(model: DraftedModel, sources: list[Row], seed: int = 1, **options: Any) -> tuple[Any, RefinementGenerator]:
    generator = RefinementGenerator(model, SYMBOLS, model.decode_options(**{**LIMITS, **options}), seed)
    return generator.generate([], sample_of(sources)), generator


PRENORM = {"encoder_normalize_before": True, "decoder_normalize_before": True}


def transformer(dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """One whose outputs are of many lengths and hardly repeat a word."""
    return tiny_transformer(**{**PRENORM, **options}).to(dtype)


# --- exactness


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_the_output_is_the_greedy_one_whatever_the_drafts_are(dtype: torch.dtype, share: float, k: int) -> None:
    """BPD-3: with any number of drafts, right or wrong; a call gives from one to k tokens, and never too many calls."""
    model = transformer(dtype)
    expected = greedy(model, SOURCES)
    said = texts(expected)
    offered = wrong(said, share)
    if k > 1:
        found, generator = run(prompted(model, offered), SOURCES, draft_length=k - 1)
    else:
        found, generator = run(prompted(model, [[PAD]] * len(SOURCES)), SOURCES, draft_length=1)
    assert_greedy(found, expected)
    calls = [group[0]["steps"] + 1 for group in found]
    lengths = [len(row) for row in said]
    assert len(set(lengths)) > 5, "outputs of many lengths"
    assert all(math.ceil(n / k) <= one <= n for n, one in zip(lengths, calls, strict=True))
    if share == 0:
        assert calls == [math.ceil(n / k) for n in lengths]
    if share == 1 or k == 1:
        assert calls == lengths
    assert generator.counters.rows["decoder"] >= sum(calls) * 0.98
    assert generator.counters.calls["decoder"] == max(calls)


@pytest.mark.parametrize("limits", [
    {"max_len_a": 0.0, "max_len_b": 5}, {"max_len_a": 0.0, "max_len_b": 0, "min_len": 0}, {"min_len": 7},
    {"min_len": 0}, {"max_len_a": 0.0, "max_len_b": 6, "min_len": 6}, {"unk_penalty": 3.0}, {"temperature": 1.7},
    {"len_penalty": 0.3}, {"normalize_scores": False}, {"max_len_a": 0.0, "max_len_b": 500},
])  # fmt: skip
def test_limits_and_penalties_are_fairseqs(limits: dict[str, Any]) -> None:
    """BPD-4: the least and the greatest length, the end that is forced, penalties, and scores of outputs."""
    ours = {"unk_penalty": "unkpen", "len_penalty": "lenpen", "normalize_scores": "rescore_norm"}
    options = {ours.get(name, name): x or "sum" if name == "normalize_scores" else x for name, x in limits.items()}
    model = transformer()
    expected = greedy(model, SOURCES, **limits)
    for share in (0.0, 0.4):
        assert_greedy(decoded(prompted(model, wrong(texts(expected), share)), SOURCES, **options), expected)
    if "max_len_b" in limits:
        longest = max(len(group[0]["tokens"]) for group in expected)
        assert longest == min(limits["max_len_b"], 63) + 1, "the limit is reached"


def test_a_least_length_above_the_greatest_is_refused() -> None:
    model = prompted(transformer(), [[5]])
    with pytest.raises(UsageError, match="--min-len 9: a sentence of this batch may have 4 words at most"):
        decoded(model, [[5]], min_len=9, max_len_a=0.0, max_len_b=4)


@pytest.mark.parametrize("size", [1, 5, 24])
def test_sentences_leave_the_batch_and_change_no_other(size: int) -> None:
    """BPD-5: in batches of any size, one by one, padded on the left, and cut into chunks."""
    model = transformer()
    for i in range(0, len(SOURCES), size):
        part = SOURCES[i : i + size]
        width = max(map(len, part)) + 1  # what an output may have depends on the batch, in fairseq too
        expected = greedy(model, part)
        drafted = prompted(model, wrong(texts(expected), 0.3))
        found = decoded(drafted, part)
        assert_greedy(found, expected)
        assert width > 1
    options = {"max_len_a": 0.0, "max_len_b": 20}
    expected = greedy(model, SOURCES, **options)
    drafts = wrong(texts(expected), 0.3)
    alone = [decoded(prompted(model, [draft]), [row], **options)[0] for draft, row in zip(drafts, SOURCES, strict=True)]
    together = decoded(prompted(model, drafts), SOURCES, **options)
    assert_same(alone, together)


def test_the_cache_is_made_smaller_and_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """BPD-2: with rejected columns dropped after every call, after some, and never."""
    from nar_plugin.methods import speculative as method

    model = transformer()
    expected = greedy(model, SOURCES, max_len_b=40)
    for least in (1, 12, 10_000):
        monkeypatch.setattr(method, "LEAST_COLUMNS", least)
        found = decoded(prompted(model, wrong(texts(expected), 0.5)), SOURCES, max_len_b=40)
        assert_greedy(found, expected)


def test_an_empty_source_has_an_empty_output() -> None:
    found = decoded(prompted(transformer(), [[5, 6, EOS]] * 3), [[5], [], [7]])
    assert found[1][0]["tokens"].tolist() == [EOS]


# --- drafters


WRITERS = {
    "ctc": {"arch": "ctc_tiny"},
    "mask_predict": {},
    "iterative_refinement": {"arch": "iterative_refinement_tiny"},
    "lanmt": {"arch": "latent_transformer_tiny"},
    "codes": {"arch": "latent_transformer_tiny", "latent": "fsq", "max_update": 100},
    "target latents": {"arch": "lanmt_continuous_tiny"},
    "refiner": {"arch": "lanmt_refiner_tiny"},
}


def written(model: Any, writer: Any, **options: Any) -> DraftedModel:
    given = DraftedSentences(**options)
    return speculative.by_sentences("transformer", CachedTransformer(model, SYMBOLS), writer, SYMBOLS, given)


@pytest.mark.parametrize("name", WRITERS)
def test_any_model_that_writes_a_sentence_drafts(name: str) -> None:
    """BPD-14: every architecture drafts for every transformer, and the output is the transformer's."""
    model = transformer(torch.float32)
    expected = greedy(model, SOURCES)
    found, generator = run(written(model, tiny_model(**WRITERS[name])), SOURCES)
    assert_greedy(found, expected)
    assert generator.counters.calls["drafter's decoder"] >= 1
    assert generator.counters.rows["decoder"] <= sum(map(len, texts(expected)))


def test_a_sentence_goes_on_after_a_rejection() -> None:
    """BPD-15: a word more, a word less or another word in the draft costs a call or two, not the rest."""
    model = transformer()
    options = {"max_len_a": 0.0, "max_len_b": 30, "min_len": 20}
    expected = greedy(model, SOURCES, **options)
    said = texts(expected)

    class Writer:
        def sentences(self, told: Any) -> Tensor:
            drafts = [[*row[:6], *row[7:12], 9, *row[12:]] for row in said]
            width = max(map(len, drafts))
            return torch.tensor([row + [PAD] * (width - len(row)) for row in drafts])

    from nar_plugin.methods.drafters import SentenceDrafter

    verifier = CachedTransformer(model, SYMBOLS)
    drafted = DraftedModel("t", verifier, SentenceDrafter(Writer(), SYMBOLS), SYMBOLS, DraftedSentences)  # type: ignore[arg-type]
    found = decoded(drafted, SOURCES, **options)
    assert_greedy(found, expected)
    calls = [group[0]["steps"] + 1 for group in found]
    assert sum(calls) < 0.4 * sum(map(len, said))


def test_ngrams_of_the_source_and_of_the_output_draft() -> None:
    """BPD-16: with a joint dictionary, whose sources are looked up too, and with two."""
    model = transformer()
    expected = greedy(model, SOURCES, max_len_b=30)
    offered = []
    for is_joint in (True, False):
        drafted = speculative.by_ngrams("t", CachedTransformer(model, SYMBOLS), SYMBOLS, is_joint=is_joint)
        drafted.speculation.drafter = counting = Counting(drafted.speculation.drafter)
        found, generator = run(drafted, SOURCES, max_len_b=30)
        assert_greedy(found, expected)
        assert generator.counters.rows["decoder"] < 0.8 * sum(map(len, texts(expected)))
        offered.append(counting.drafts)
    assert offered[0] > offered[1]


class Counting:
    """A drafter whose drafts are counted."""

    def __init__(self, drafter: Any) -> None:
        self.begin, self.drafter, self.drafts = drafter.begin, drafter, 0

    def draft(self, state: Drafting) -> Draft:
        found: Draft = self.drafter.draft(state)
        self.drafts += int(found.is_token.sum())
        return found


@pytest.mark.parametrize("drafts", [1, 3, 8])
def test_a_small_autoregressive_model_drafts(drafts: int) -> None:
    """BPD-17: another model, and the same one, which is always right."""
    model, other = transformer(), transformer(seed=9, decoder_layers=1)
    expected = greedy(model, SOURCES)
    verifier = CachedTransformer(model, SYMBOLS)
    for small in (other, model):
        drafted = speculative.by_steps("t", verifier, CachedTransformer(small, SYMBOLS), SYMBOLS)
        found = decoded(drafted, SOURCES, draft_length=drafts)
        assert_greedy(found, expected)
    calls = [group[0]["steps"] + 1 for group in found]
    assert calls == [math.ceil(len(row) / (drafts + 1)) for row in texts(expected)]


def test_what_a_small_model_reads_is_what_was_accepted() -> None:
    """BPD-17: its drafts are those that it makes of the accepted text when it reads all of it anew."""
    model = transformer()
    small = nearly(model)
    drafted = speculative.by_steps("t", CachedTransformer(model, SYMBOLS), CachedTransformer(small, SYMBOLS), SYMBOLS)
    drafted.speculation.drafter = checked = Checked(drafted.speculation.drafter, small)
    decoded(drafted, SOURCES[:6], draft_length=3, max_candidate_tokens=None)
    assert checked.compared > 20 and {0, 1, 3} <= checked.taken, "some calls accept all, some few, some nothing"


def nearly(model: Any) -> Any:
    """A model that mostly says the same."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in other.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.mul_(1 + 0.05 * noise)
    return other


class Checked:
    """A drafter whose drafts are compared with a plain greedy continuation of the accepted text."""

    def __init__(self, drafter: Any, small: Any) -> None:
        self.drafter, self.small, self.compared, self.taken = drafter, small, 0, set[int]()

    def begin(self, encoded: SourceEncoded, plan: Plan, keys: Tensor | None) -> Any:
        return Pair(inner=self.drafter.begin(encoded, plan, keys), sources=torch.arange(len(encoded.keys)))

    def draft(self, state: Drafting) -> Draft:
        found = self.drafter.draft(replace(state, kept=state.kept.inner))
        self.taken |= set(state.taken[~state.done].tolist())
        for row, source in enumerate(state.kept.sources.tolist()):
            if not state.done[row]:
                self.check(state, row, SOURCES[source], found.tokens[row].tolist())
        return found._replace(kept=Pair(inner=found.kept, sources=state.kept.sources))

    def check(self, state: Drafting, row: int, source: Row, drafts: Row) -> None:
        said = state.tokens[row, : int(state.count[row])].tolist()
        encoded = self.small.encoder(**sample_of([source])["net_input"])
        for draft in drafts:
            if len(said) >= state.plan.longest:
                return
            logits = self.small.decoder(torch.tensor([[EOS, *said]]), encoder_out=encoded)[0][0, -1]
            logits[PAD] = -torch.inf
            if len(said) < state.plan.shortest:
                logits[EOS] = -torch.inf
            assert int(logits.argmax()) == draft
            said.append(draft)
            self.compared += 1


@dataclass(frozen=True, kw_only=True)
class Pair(Rows):
    inner: Any
    sources: Tensor


@pytest.mark.parametrize("name", ["mask_predict", "iterative_refinement"])
def test_a_drafter_writes_the_rest_anew(name: str) -> None:
    """BPD-18: with --redraft, and the output stays the verifier's."""
    model, writer = transformer(torch.float32), tiny_model(**WRITERS[name])
    expected = greedy(model, SOURCES)
    once, rewritten = (run(written(model, writer, redraft=x), SOURCES, redraft=x) for x in (False, True))
    assert_greedy(rewritten[0], expected)
    assert rewritten[1].counters.calls["drafter's decoder"] > once[1].counters.calls["drafter's decoder"]


def test_a_drafter_that_cannot_write_on_is_refused() -> None:
    with pytest.raises(UsageError, match="--redraft: a drafter of --arch ctc_tiny does not write on"):
        written(transformer(), tiny_model(arch="ctc_tiny"), redraft=True)
    with pytest.raises(UsageError, match="--iter-decode-max-iter 3: a drafter of --arch ctc_tiny makes one pass"):
        written(transformer(), tiny_model(arch="ctc_tiny"), iterations=3)


def test_passes_of_a_drafter_are_as_many_as_asked() -> None:
    """fairseq's default of 10 is silence: one pass."""
    model, writer = transformer(torch.float32), tiny_model()
    for asked, passes in ((0, 1), (10, 1), (3, 4)):
        _, generator = run(written(model, writer, iterations=asked), SOURCES[:4], iterations=asked)
        assert generator.counters.calls["drafter's decoder"] == passes


# --- other rules


def accepted_by(model: Any, source: Row, said: Row, k: int) -> list[tuple[int, int]]:
    """Of each word the rank that fairseq's logits give it after those before it, and its distance from the best."""
    encoded = model.encoder(**sample_of([source])["net_input"])
    logits = model.decoder(torch.tensor([[EOS, *said[:-1]]]), encoder_out=encoded)[0][0]
    logits[:, PAD] = -torch.inf
    logits[0, EOS] = -torch.inf
    return [
        (int((row > row[word]).sum()), abs(word - int(row.argmax()))) for row, word in zip(logits, said, strict=True)
    ]


@torch.no_grad()
@pytest.mark.parametrize("options", [
    {"accept": "top-k", "accept_top_k": 2}, {"accept": "top-k", "accept_top_k": 5},
    {"accept": "distance", "accept_distance": 1}, {"accept": "distance", "accept_distance": 4},
])  # fmt: skip
def test_a_looser_rule_is_held_after_what_it_accepted(options: dict[str, Any]) -> None:
    """BPD-11: every word is near enough to the best one given the accepted words before it."""
    model = transformer()
    greedily = texts(greedy(model, SOURCES))
    found = decoded(prompted(model, wrong(greedily, 0.5)), SOURCES, **options)
    said = texts(found)
    assert said != greedily, "it accepts other words"
    for source, row in zip(SOURCES, said, strict=True):
        whole = row[:-1] if len(row) == int(1.5 * 10 + 8) + 1 else row  # an end that was forced
        for rank, distance in accepted_by(model, source, row, 0)[: len(whole)]:
            assert rank < options.get("accept_top_k", WORDS + 9) and distance <= options.get("accept_distance", 99)


def test_blocks_of_a_least_size() -> None:
    """BPD-12: so many tokens a call, whatever they are; of one token nothing changes."""
    model = transformer()
    greedily = texts(greedy(model, SOURCES))
    offered = [row[:-1] for row in wrong(greedily, 1.0)]
    same = decoded(prompted(model, offered), SOURCES, min_block=1)
    assert texts(same) == greedily
    found = decoded(prompted(model, offered), SOURCES, min_block=3, draft_length=2)
    calls, lengths = [group[0]["steps"] + 1 for group in found], [len(row) for row in texts(found)]
    for row, draft in zip(texts(found), offered, strict=True):
        whole = min(len(row) - 1, len(draft))
        for i in range(0, whole - 2, 3):
            if EOS not in row[i : i + 3]:
                assert row[i] == draft[i], "a forced draft"
    assert sum(calls) < sum(lengths)


# --- sampling


@pytest.mark.parametrize("options", [
    {}, {"block_verification": True}, {"sampling_topk": 3}, {"sampling_topp": 0.6}, {"temperature": 0.7},
])  # fmt: skip
@pytest.mark.parametrize("kind", ["small model", "ngram", "prompt"])
def test_samples_with_drafts_are_those_of_the_verifier(options: dict[str, Any], kind: str) -> None:
    """BPD-20, BPD-25: the first three words are distributed as those that are drawn one by one; words outside of the
    truncated distribution never come."""
    model = tiny_transformer(seed=3, words=3)
    source, n = [4, 5, 6], 6000
    joint = joint_of(model, source, 3, **options)
    verifier = CachedTransformer(model, SMALL)
    if kind == "small model":
        drafted = speculative.by_steps("t", verifier, CachedTransformer(tiny_transformer(7, 3), SMALL), SMALL)
    elif kind == "ngram":
        drafted = speculative.by_ngrams("t", verifier, SMALL, is_joint=True)
    else:
        drafted = DraftedModel("t", verifier, Prompter([[4, 5, 6, 4]] * n), SMALL, DraftedSteps)
    given = DraftedSteps(sampling=True, draft_length=2, max_len_a=0.0, max_len_b=4, **options)
    generator = RefinementGenerator(drafted, SMALL, given)
    found: dict[tuple[int, ...], int] = {}
    for group in generate_apart(generator, [source] * n):
        words = tuple(group[0]["tokens"].tolist()[:3])
        found[words] = found.get(words, 0) + 1
    assert set(found) <= set(joint), "a word that cannot be drawn"
    expected = {words: p * n for words, p in joint.items() if p * n > 5}
    chi = sum((found.get(words, 0) - e) ** 2 / e for words, e in expected.items())
    assert len(expected) > 3
    assert (chi - len(expected)) / math.sqrt(2 * len(expected)) < 4.5


SMALL = replace(SYMBOLS, size=7)


def generate_apart(generator: RefinementGenerator, sources: list[Row]) -> list[list[dict[str, Any]]]:
    """As if every copy of a source were another: with noise of its own."""
    encode = generator.model.encode

    def apart(net_input: Any) -> Any:
        encoded = encode(net_input)
        return replace(encoded, keys=torch.arange(len(encoded.keys)))

    generator.model.encode = apart  # type: ignore[method-assign]
    return generator.generate([], sample_of(sources))


@torch.no_grad()
def joint_of(
    model: Any,
    source: Row,
    length: int,
    temperature: float = 1.0,
    sampling_topk: int = -1,
    sampling_topp: float = -1.0,
    block_verification: bool = False,
) -> dict[tuple[int, ...], float]:
    """By prefix of so many words (or whole output) its probability under fairseq's sampling, by enumeration."""
    encoded = model.encoder(**sample_of([source])["net_input"])
    open_: dict[tuple[int, ...], float] = {(): 1.0}
    ended: dict[tuple[int, ...], float] = {}
    for step in range(length):
        grown: dict[tuple[int, ...], float] = {}
        for words, p in open_.items():
            logits = model.decoder(torch.tensor([[EOS, *words]]), encoder_out=encoded)[0][0, -1] / temperature
            probs = logits.softmax(-1)
            probs[PAD] = 0
            if step < 1:
                probs[EOS] = 0
            ranked = probs.sort(descending=True)
            if sampling_topp > 0:
                n = int((ranked.values.cumsum(0) < sampling_topp).sum()) + 1
                probs[ranked.indices[n:]] = 0
            elif sampling_topk > 0:
                probs[ranked.indices[sampling_topk:]] = 0
            probs = probs / probs.sum()
            for word, q in enumerate(probs.tolist()):
                if q:
                    (ended if word == EOS else grown)[(*words, word)] = p * q
        open_ = grown
    return {**open_, **ended}


def test_at_no_temperature_samples_are_the_greedy_output() -> None:
    """BPD-25: as the temperature falls to 0, sampling is greedy decoding, with any drafts."""
    model = transformer()
    expected = texts(greedy(model, SOURCES))
    for by_block in (False, True):
        options = {"sampling": True, "temperature": 1e-3, "block_verification": by_block}
        found = decoded(prompted(model, wrong(expected, 0.4)), SOURCES, **options)
        same = sum(a == b for a, b in zip(texts(found), expected, strict=True))
        assert same > 0.8 * len(SOURCES), "but where two words are nearly as probable"
    found = decoded(prompted(model, wrong(expected, 0.4)), SOURCES, sampling=True, sampling_topk=1)
    assert texts(found) == expected


def test_samples_depend_on_the_seed_and_the_source_alone() -> None:
    model = transformer()
    small = CachedTransformer(transformer(seed=9, decoder_layers=1), SYMBOLS)
    drafted = speculative.by_steps("t", CachedTransformer(model, SYMBOLS), small, SYMBOLS)
    options = {"sampling": True, "max_len_a": 0.0, "max_len_b": 12}
    together = decoded(drafted, SOURCES, **options)
    alone = [decoded(drafted, [row], **options)[0] for row in SOURCES]
    assert texts(alone) == texts(together)
    assert texts(decoded(drafted, SOURCES, seed=2, **options)) != texts(together)


# --- beside


def test_the_report_says_how_many_tokens_a_call_gives(caplog: pytest.LogCaptureFixture) -> None:
    """BPD-19: calls of the verifier, tokens a call; and the steps of each sentence."""
    model = transformer()
    expected = texts(greedy(model, SOURCES))
    found, generator = run(prompted(model, expected), SOURCES, draft_length=3)
    with caplog.at_level("INFO"):
        generator.counters.report()
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"decoder {max(group[0]['steps'] + 1 for group in found)} passes over" in line
    assert f"{generator.counters.tokens_a_call:.2f} tokens a call" in line
    assert 3 < generator.counters.tokens_a_call <= 4


@torch.no_grad()
def test_given_targets_are_scored_as_fairseq_scores_them() -> None:
    model = transformer()
    drafted, targets = prompted(model, [[5]]), random_rows(24, 6, seed=8)
    sample = sample_of(SOURCES, targets)
    scored = drafted.score(drafted.encode(sample["net_input"]), sample["target"])
    shifted = torch.cat([torch.full((24, 1), EOS), sample["target"][:, :-1]], 1)
    shifted = torch.where((shifted == EOS) & (torch.arange(shifted.size(1)) > 0), PAD, shifted)
    logits = model.decoder(shifted, encoder_out=model.encoder(**sample["net_input"]))[0]
    log_probs = logits.float().log_softmax(-1).gather(2, sample["target"][..., None])[..., 0]
    torch.testing.assert_close(scored.tokens, log_probs.masked_fill(sample["target"] == PAD, 0.0), atol=1e-5, rtol=1e-4)


def test_options_belong_to_who_heeds_them() -> None:
    assert issubclass(DraftedSteps, Drafted) and issubclass(DraftedSentences, Drafted)
    with pytest.raises(UsageError, match="--engine compiled: not where drafts are verified"):
        DraftedSteps(engine="compiled")


def test_whole_numbers_give_what_the_same_verifier_says_greedily_in_them() -> None:
    """BPD-3: under --engine int8, whatever the drafts are; fairseq's own sums differ in few words."""
    model = tiny_transformer()
    engines.prepare([model], "int8")
    expected = decoded(prompted(model, [[PAD]] * len(SOURCES)), SOURCES)
    for share in (0.0, 0.4):
        found = decoded(prompted(model, wrong(texts(expected), share)), SOURCES)
        assert texts(found) == texts(expected)
    theirs = texts(greedy(model, SOURCES))
    assert sum(a == b for a, b in zip(texts(expected), theirs, strict=True)) > 0.8 * len(SOURCES)


def test_an_encoder_that_is_shared_reads_a_source_once() -> None:
    """BPD-14: states of the verifier serve a drafter whose frozen encoder is the same, padded on either side."""
    model = tiny_transformer()
    student = tiny_model(arch="ctc_tiny", freeze="encoder", is_lively=False)
    assert not student.shares_encoder(model)
    student.warm_start(model, ())
    student.eval()
    assert student.shares_encoder(model) and not tiny_model(arch="ctc_tiny").shares_encoder(model)
    verifier, calls = CachedTransformer(model, SYMBOLS), []
    student.encoder.layers[0].register_forward_hook(lambda *_: calls.append(1))
    outputs = []
    for is_shared in (False, True):
        calls.clear()
        drafted = speculative.by_sentences("t", verifier, student, SYMBOLS, DraftedSentences(), is_shared=is_shared)
        given = drafted.decode_options(**LIMITS)
        for is_left in (False, True):
            generator = RefinementGenerator(drafted, SYMBOLS, given)
            outputs.append(generator.generate([], sample_of(SOURCES, is_left=is_left)))
            assert ("drafter's encoder" in generator.counters.calls) is not is_shared
        assert len(calls) == (0 if is_shared else 2)
    assert len({sum(group[0]["steps"] for group in one) for one in outputs}) == 1, "the same drafts"
    assert all(texts(one) == texts(outputs[0]) for one in outputs)
