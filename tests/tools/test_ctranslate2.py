"""CTranslate2 as a system of the clock: the same tokens as fairseq's, or one line that says why not."""

import random
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.models.transformer import TransformerModel, base_architecture
from fairseq.sequence_generator import SequenceGenerator

from nar_plugin.methods import options
from nar_tools.errors import ToolError
from nar_tools.measure import conversion, entrants, results, runs
from nar_tools.measure.translated import Translated
from tests import tiny
from tests.end_to_end.programs import PLUGIN, complains, console
from tests.tools.conftest import FORCED, VERB

SIZES = {"embed_dim": 16, "ffn_embed_dim": 32, "attention_heads": 2, "layers": 2}
DEEP_SHALLOW = {"encoder_layers": 3, "decoder_layers": 1}
PRE_NORM = {"encoder_normalize_before": True, "decoder_normalize_before": True}
LEARNED = {"encoder_learned_pos": True, "decoder_learned_pos": True}
JOINT = {"share_all_embeddings": True}
WORDS = tiny.dictionary()
TASK: Any = SimpleNamespace(source_dictionary=WORDS, target_dictionary=WORDS)


def transformer(**changes: Any) -> Any:
    """An untrained transformer of fairseq, of weights so large that every output depends on the source."""
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in SIZES.items()}
    limits = {"max_source_positions": tiny.POSITIONS, "max_target_positions": tiny.POSITIONS}
    args = Namespace(**{"dropout": 0.0, **sides, **limits, **changes})
    base_architecture(args)
    torch.manual_seed(1)
    model = TransformerModel.build_model(args, TASK)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(
                    std=0.5 if "embed" in name else (4.0 if "encoder_attn" in name else 1.5) / SIZES["embed_dim"] ** 0.5
                )
        for side in (model.encoder, model.decoder):
            side.embed_tokens.weight[WORDS.pad()] = 0.0
        model.decoder.output_projection.weight[WORDS.pad()] = 0.0
    return model.eval()


def system(model: Any, **search: Any) -> Translated:
    """What a loaded system is, without a checkpoint and data."""
    made = object.__new__(Translated)
    made.generator = SequenceGenerator([model], WORDS, **{"beam_size": 1, "max_len_b": 12, **search})
    made.models, made.task, made.threads, made.calls, made.is_gpu = [model], TASK, 1, 0, False
    made.has_shortlist = False
    made.task.inference_step = lambda generator, models, sample: generator.generate(models, sample)
    made.translator = made.converted("float32")
    made.about = {"compute_type": "float32", "engine_version": "1"}
    return made


def batch(count: int = 12) -> Any:
    """Sources of several lengths, padded on the left as fairseq pads them."""
    draw = random.Random(1)
    rows = [
        draw.choices(range(tiny.FIRST_WORD, len(WORDS)), k=draw.randint(1, 9)) + [WORDS.eos()] for _ in range(count)
    ]
    width = max(map(len, rows))
    tokens = torch.tensor([[WORDS.pad()] * (width - len(row)) + row for row in rows])
    return {"id": torch.arange(count), "net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(1).sum(1)}}


@pytest.mark.parametrize(
    "changes",
    [
        *({}, DEEP_SHALLOW, PRE_NORM, {**PRE_NORM, "no_decoder_final_norm": True}, LEARNED, JOINT),
        *({"activation_fn": "gelu"}, {"layernorm_embedding": True}, {"no_scale_embedding": True}),
        *({"encoder_normalize_before": True}, {"decoder_attention_heads": 4}),
    ],
    ids=str,
)
def test_a_converted_model_gives_every_word_fairseqs_probability(changes: dict[str, Any]) -> None:
    model = transformer(**changes)
    sample, words = batch(), [f"w{i}" for i in (3, 17, 5, 5, 11)]
    target = torch.tensor([WORDS.index(word) for word in words] + [WORDS.eos()]).repeat(12, 1)
    before = torch.cat([target[:, -1:], target[:, :-1]], 1)
    with torch.no_grad():
        logits, _ = model(**sample["net_input"], prev_output_tokens=before)
    theirs = logits.log_softmax(-1).gather(2, target[..., None])[..., 0]
    one = system(model)
    found = one.translator.score_batch(one.prepared(sample).words, [words] * 12)
    torch.testing.assert_close(torch.tensor([each.log_probs for each in found]), theirs, rtol=1e-4, atol=1e-4)


def test_its_greedy_search_finds_the_tokens_of_fairseqs_generator() -> None:
    one = system(transformer())
    ours = one.tokens(one.step(one.prepared(batch())))
    assert len({tuple(tokens.tolist()) for tokens in ours}) > 3, "all sources have one answer"
    assert [a.tolist() for a in ours] == [b.tolist() for b in one.tokens_of_fairseq(batch(), 1)]


@pytest.mark.parametrize("beam", [1, 3])
def test_forced_lengths_have_as_many_tokens_and_the_end_symbol(beam: int) -> None:
    one = system(transformer(), beam_size=beam, min_len=7, max_len_a=0, max_len_b=7)
    found = one.tokens(one.step(one.prepared(batch())))
    assert {tokens.numel() for tokens in found} == {8}
    assert all(tokens.tolist().index(WORDS.eos()) == 7 for tokens in found)
    assert one.calls == 8, "a step a token and one for the end, as fairseq makes them"


def test_steps_are_those_that_fairseqs_generator_may_make() -> None:
    one = system(transformer(), max_len_a=2, max_len_b=3)
    width = batch()["net_input"]["src_tokens"].size(1)
    assert one.prepared(batch()).steps == 2 * width + 3 + 1
    assert system(transformer(), max_len_b=200).prepared(batch()).steps == tiny.POSITIONS, "no more than positions"


def test_a_source_is_given_with_its_end_and_without_padding() -> None:
    words = system(transformer()).prepared(batch()).words
    assert all(sentence[-1] == "</s>" and "<pad>" not in sentence for sentence in words)
    assert len(set(map(len, words))) > 1


def test_in_whole_numbers_it_is_the_same_model_up_to_rounding() -> None:
    one = system(transformer())
    int8 = one.converted("int8")
    assert int8.compute_type.startswith("int8")
    exact, rounded = (one.translate(which, one.prepared(batch()), 1) for which in (one.translator, int8))
    assert sum(a[0] == b[0] for a, b in zip(exact, rounded, strict=True)) > len(exact) / 2


def with_samples(one: Translated) -> Translated:
    one.batches = lambda: [batch(5), batch(7)]  # type: ignore[method-assign]
    return one


def test_agreement_is_the_share_of_sentences_with_fairseqs_tokens() -> None:
    found = with_samples(system(transformer())).agreement(None)
    assert found == {"agreement": 100.0, "compute_type": "float32", "engine_version": "1"}


def test_agreement_is_greedy_where_the_end_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    beams: list[int] = []
    one = with_samples(system(transformer(), beam_size=3, min_len=4))
    compared = one.tokens_of_fairseq
    monkeypatch.setattr(one, "tokens_of_fairseq", lambda sample, beam: beams.append(beam) or compared(sample, beam))
    assert one.agreement(None)["agreement"] == 100 and beams == [1, 1]


def test_other_tokens_than_fairseqs_end_the_run_with_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    one = with_samples(system(transformer()))
    right = one.tokens_of_fairseq
    monkeypatch.setattr(one, "tokens_of_fairseq", lambda sample, beam: [torch.tensor([2]), *right(sample, beam)[1:]])
    with pytest.raises(
        ToolError, match=r"^CTranslate2 finds fairseq's tokens in 83\.3 % of 12 sentences, not in 99 %$"
    ):
        one.agreement(None)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"activation_fn": "tanh"}, "no --activation-fn tanh"),
        ({"no_cross_attention": True}, "no network for --no-cross-attention"),
        ({"no_token_positional_embeddings": True}, "no network for --no-token-positional-embeddings"),
        ({"decoder_output_dim": 8}, "embeddings are of another width"),
    ],
)
def test_a_transformer_that_it_has_no_network_for_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ToolError, match=complaint):
        conversion.check([transformer(**changes)])


def test_other_models_than_one_transformer_of_fairseqs_are_refused() -> None:
    with pytest.raises(ToolError, match="fairseq's transformer alone, not a MaskPredictModel"):
        conversion.check([tiny.tiny_model()])
    with pytest.raises(ToolError, match="one model, not with several"):
        conversion.check([transformer(), transformer()])


def test_a_dictionary_with_a_word_twice_is_refused() -> None:
    twice = tiny.dictionary()
    twice.symbols[-1] = twice.symbols[-2]
    with pytest.raises(ToolError, match="no word stands twice"):
        conversion.vocabulary(twice)


def test_without_ctranslate2_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(ToolError, match="^CTranslate2 is not installed; pip install ctranslate2$"):
        conversion.library()


@pytest.mark.parametrize(
    ("typed", "flags", "engine"),
    [
        ("--path a.pt", "--path a.pt", "eager"),
        ("--engine int8 --path a.pt", "--path a.pt --engine int8", "int8"),
        ("--engine ctranslate2 --path a.pt", "--path a.pt", "ctranslate2"),
        ("--path a.pt --engine ctranslate2-int8", "--path a.pt", "ctranslate2-int8"),
    ],
)
def test_only_the_engines_of_the_plugin_are_handed_on_to_fairseq(typed: str, flags: str, engine: str) -> None:
    found = entrants.entrant_of("a", typed)
    assert (found.flags, found.engine) == (flags, engine)


def test_the_engines_of_rows_are_the_plugins_and_ctranslate2s() -> None:
    assert results.ENGINES == (*options.ENGINES, *entrants.COMPUTE_TYPES)


def test_only_systems_of_ctranslate2_are_held_against_fairseq() -> None:
    asked: list[Any] = []
    told = {"agreement": 99.5, "compute_type": "float32", "engine_version": "4"}
    workers: list[Any] = [
        SimpleNamespace(
            entrant=entrants.entrant_of(name, f"--engine {name}"),
            facts={},
            call=lambda method, sentences: asked.append((method, sentences)) or told,
        )
        for name in ("int8", "ctranslate2")
    ]
    runs.check_agreement(workers, [3, 1])
    assert asked == [("agreement", [3, 1])] and [worker.facts for worker in workers] == [{}, told]


def benchmark(data: Path, output: Path, *words: Any) -> Any:
    once = ("--allow-noise", "--repeats", 1)
    return console([*VERB, "benchmark", data, "--output", output, *once, *words])


@pytest.mark.slow
def test_a_run_compares_all_systems_with_ctranslate2(data: Path, corpus: Path, teacher: Path, tmp_path: Path) -> None:
    flags, output = f"--path {teacher} --user-dir {PLUGIN} --task translation_nar", tmp_path / "results.json"
    systems = [
        "--system",
        "ar",
        f"{flags} --beam 1",
        "--system",
        "ct2-greedy",
        f"{flags} --beam 1 --engine ctranslate2",
    ]
    systems += ["--system", "ct2-int8", f"{flags} --engine ctranslate2-int8", "--competitor", "ct2-greedy"]
    sizes = ["--batch-sizes", 1, 16, "--sentences", 16]
    done = benchmark(data, output, "--reference", corpus / "test.tgt", *systems, *sizes)
    assert done.code == 0, done.stderr
    ar, greedy, int8 = results.read(output)
    assert [row["engine"] for row in (ar, greedy, int8)] == ["eager", "ctranslate2", "ctranslate2-int8"]
    assert greedy["bleu"] == ar["bleu"] and greedy["passes"] == pytest.approx(ar["passes"])
    assert greedy["agreement"] >= 99 and greedy["compute_type"] == "float32" and int8["compute_type"] != "float32"
    assert int8["passes"] is None and ar["agreement"] is None and "--engine" not in greedy["decode_flags"]
    assert greedy["competitor_ratio"] == 1 and ar["competitor"] == "ct2-greedy"
    assert ar["throughput"].keys() == {"1", "16"} and ar["competitor_throughput"] == greedy["throughput"]
    assert {path.name for path in teacher.parent.iterdir()} >= {teacher.name}
    assert not [path for path in teacher.parent.iterdir() if path.name.endswith((".bin", ".json"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--path {student}", "a: CTranslate2 decodes fairseq's transformer alone, not a MaskPredictModel"),
        ("--path {teacher} --sampling", "a: CTranslate2 is measured without --sampling"),
        ("--path {teacher}:{teacher}", "a: CTranslate2 decodes with one model, not with several"),
    ],
)
def test_what_ctranslate2_cannot_decode_ends_the_run_with_one_line(
    data: Path, corpus: Path, student: Path, teacher: Path, tmp_path: Path, flags: str, complaint: str
) -> None:
    flags = f"--engine ctranslate2 --user-dir {PLUGIN} --task translation_nar {flags}"
    words = ("--reference", corpus / "test.tgt", "--system", "a", flags.format(student=student, teacher=teacher))
    complains(benchmark(data, tmp_path / "results.json", *words), "nar benchmark: ", complaint)
    assert not (tmp_path / "results.json").exists()


@pytest.mark.slow
def test_a_run_of_a_forced_length_times_ctranslate2_too(joined: Path, teacher: Path, tmp_path: Path) -> None:
    flags, output = f"--path {teacher} --user-dir {PLUGIN} --task translation_nar", tmp_path / "results.json"
    systems = ["--system", "ct2-beam5", f"{flags} --engine ctranslate2 {FORCED.format(7)}"]
    done = benchmark(joined, output, "--forced-length", 7, *systems)
    assert done.code == 0, done.stderr
    (row,) = results.read(output)
    assert row["forced_length"] == 7 and row["timed_sentences"] == 4 and row["agreement"] == 100
    done = benchmark(joined, output, "--forced-length", 6, *systems)
    complains(done, "nar benchmark: ", "ct2-beam5: hypotheses of 7 tokens, not of 6")


def test_a_shortlist_of_ours_is_one_of_ctranslate2(tmp_path: Path) -> None:
    """Its lines are a vmap; the agreement is that without it."""
    allowed, words = WORDS.symbols[tiny.FIRST_WORD :: 2], WORDS.symbols[tiny.FIRST_WORD :]
    lines = ["\t</s> <unk>", *(f"{word}\t{' '.join(allowed)}" for word in words)]
    path = tmp_path / "words.txt"
    path.write_text("".join(line + "\n" for line in ["{}", *lines]), encoding="utf-8")
    translated = system(transformer(**PRE_NORM, **JOINT))
    free = [word for row in translated.step(translated.prepared(batch())) for word in row]
    assert not set(free) <= {*allowed, "</s>"}, "the shortlist would change nothing"
    translated.translator, translated.has_shortlist = translated.converted("float32", path), True
    bound = [word for row in translated.step(translated.prepared(batch())) for word in row]
    assert set(bound) <= {*allowed, "<s>", "</s>", "<unk>"} and set(bound) & set(allowed)
    translated.batches = lambda: [batch()]
    assert translated.agreement(None)["agreement"] == 100
