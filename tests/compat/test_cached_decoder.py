"""fairseq's decoder read several tokens a call with a cache, against its own forward without one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nar_plugin.compat import CachedTransformer
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.speculative import Reading
from nar_plugin.methods.symbols import Symbols
from tests.tiny import EOS, PAD, SYMBOLS, net_input_of, random_rows, stand_in_task, tiny_model, tiny_transformer

KINDS: dict[str, dict[str, Any]] = {
    "post-norm": {},
    "pre-norm": {"encoder_normalize_before": True, "decoder_normalize_before": True},
    "one table": {"share_all_embeddings": True},
    "tied outputs": {"share_decoder_input_output_embed": True},
    "learned positions": {"encoder_learned_pos": True, "decoder_learned_pos": True},
    "no positions": {"no_token_positional_embeddings": True},
    "norm of embeddings": {"layernorm_embedding": True},
    "no scale": {"no_scale_embedding": True},
    "gelu": {"activation_fn": "gelu"},
    "other widths": {"decoder_input_dim": 16, "decoder_output_dim": 24},
    "LayerDrop": {"decoder_layerdrop": 0.5, "encoder_layerdrop": 0.5},
    "no final norm": {"decoder_normalize_before": True, "no_decoder_final_norm": True},
    "another encoder": {"encoder_embed_dim": 48, "encoder_attention_heads": 3},
}
SOURCES = random_rows(6, 7, seed=1)


def verifier_of(kind: str, dtype: torch.dtype = torch.float64) -> CachedTransformer:
    return CachedTransformer(tiny_transformer(**KINDS[kind]).to(dtype), SYMBOLS)


@torch.no_grad()
def whole(verifier: CachedTransformer, net_input: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """fairseq's logits of all tokens at once, (B, T, V)."""
    model = verifier.model
    return model.decoder(tokens, encoder_out=model.encoder(**net_input))[0]


@torch.no_grad()
def read(verifier: CachedTransformer, reading: Reading, tokens: Tensor, first: Tensor) -> tuple[Tensor, Reading]:
    """(R, K, V) logits of tokens whose first stands at the place (R,) ``first``."""
    places = first[:, None] + torch.arange(tokens.size(1))
    states, reading = verifier.extend(reading, tokens, torch.ones_like(tokens, dtype=torch.bool), places)
    return verifier.logits(states), reading


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("is_left", [False, True])
def test_tokens_read_a_few_at_a_time_have_fairseqs_logits(kind: str, dtype: torch.dtype, is_left: bool) -> None:
    """BPD-1: of every kind of transformer, whatever side its sources are padded on."""
    verifier, net_input = verifier_of(kind, dtype), net_input_of(SOURCES, is_left=is_left)
    tokens = torch.randint(4, SYMBOLS.size, (6, 11), generator=torch.Generator().manual_seed(2))
    tokens[:, 0] = EOS
    expected = whole(verifier, net_input, tokens)
    reading, parts, place = verifier.reading(verifier.encode(net_input)), [], torch.zeros(6, dtype=torch.int64)
    for part in tokens.split([1, 4, 1, 3, 2], 1):
        logits, reading = read(verifier, reading, part, place)
        parts.append(logits)
        place = place + part.size(1)
    found = torch.cat(parts, 1)
    # fairseq takes the softmax of attention in float32 whatever the weights are
    torch.testing.assert_close(found, expected, atol=1e-4 if dtype == torch.float32 else 1e-5, rtol=1e-4)
    if dtype == torch.float64:
        assert torch.equal(found.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("kind", ["post-norm", "pre-norm", "learned positions"])
@pytest.mark.parametrize("is_compacted", [False, True])
def test_rows_that_keep_different_numbers_of_tokens_go_on_as_their_own(kind: str, is_compacted: bool) -> None:
    """BPD-2: rejected tokens are as if they had not been read, and dropping them changes nothing."""
    verifier, net_input = verifier_of(kind), net_input_of(SOURCES)
    generator = torch.Generator().manual_seed(3)
    said, reading = [[] for _ in SOURCES], verifier.reading(verifier.encode(net_input))
    for _ in range(5):
        block = torch.randint(4, SYMBOLS.size, (6, 4), generator=generator)
        first = torch.tensor([len(words) for words in said])
        logits, reading = read(verifier, reading, block, first)
        for row, words in enumerate(said):
            tokens = torch.tensor([words + block[row].tolist()])
            one = {name: x[row : row + 1] for name, x in net_input_of(SOURCES).items()}
            torch.testing.assert_close(logits[row], whole(verifier, one, tokens)[0, len(words) :], atol=1e-6, rtol=1e-4)
        counts = torch.randint(0, 5, (6,), generator=generator)
        reading = reading.kept(torch.arange(4) < counts[:, None])
        if is_compacted:
            reading = Reading(cache=reading.cache.compacted(), memory=reading.memory, is_source=reading.is_source)
        said = [words + block[row, : counts[row]].tolist() for row, words in enumerate(said)]
    assert len(set(map(len, said))) > 3


def test_a_rejected_token_would_have_made_a_difference() -> None:
    verifier, net_input = verifier_of("post-norm"), net_input_of(SOURCES)
    nothing = verifier.reading(verifier.encode(net_input))
    tokens, zero = torch.full((6, 2), 7), torch.zeros(6, dtype=torch.int64)
    _, read_all = read(verifier, nothing, tokens, zero)
    last = torch.full((6, 1), 9)
    honest, _ = read(verifier, read_all.kept(torch.tensor([[True, False]]).expand(6, 2)), last, zero + 1)
    wrong, _ = read(verifier, read_all, last, zero + 1)
    assert not torch.allclose(honest, wrong, atol=0.05)


def test_positions_are_each_rows_own_and_beyond_the_last_none_fails() -> None:
    verifier, net_input = verifier_of("learned positions"), net_input_of(SOURCES[:2])
    reading = verifier.reading(verifier.encode(net_input))
    tokens = torch.full((2, 1), 8)
    one, _ = read(verifier, reading, tokens, torch.tensor([3, 5]))
    two, _ = read(verifier, reading, tokens, torch.tensor([3, 9]))
    torch.testing.assert_close(one[0], two[0])
    assert not torch.allclose(one[1], two[1], atol=0.05)
    read(verifier, reading, tokens, torch.tensor([3, 10_000]))


def test_a_beam_search_on_the_same_model_changes_nothing() -> None:
    """BPD-6: fairseq's generator writes its beam into the model."""
    from fairseq.sequence_generator import SequenceGenerator

    verifier, net_input = verifier_of("post-norm"), net_input_of(SOURCES[:5])
    tokens, zero = torch.full((5, 2), 7), torch.zeros(5, dtype=torch.int64)
    before, _ = read(verifier, verifier.reading(verifier.encode(net_input)), tokens, zero)
    SequenceGenerator([verifier.model], stand_in_task().target_dictionary, beam_size=5, max_len_b=5).generate(
        [], {"net_input": net_input}
    )
    after, _ = read(verifier, verifier.reading(verifier.encode(net_input)), tokens, zero)
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"adaptive_softmax_cutoff": "8,16"}, "--adaptive-softmax-cutoff"),
        ({"no_cross_attention": True}, "--no-cross-attention"),
        ({"cross_self_attention": True}, "--cross-self-attention"),
        ({"quant_noise_pq": 0.1}, "--quant-noise-pq"),
        ({"scale_fc": True}, "scales of layers"),
    ],
)
def test_what_it_does_not_know_is_refused_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        CachedTransformer(tiny_transformer(**options), SYMBOLS)
    assert "\n" not in str(raised.value)


def test_another_model_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="by fairseq's transformer alone; this is a MaskPredictModel"):
        CachedTransformer(tiny_model(), SYMBOLS)


def test_sources_are_known_whatever_side_they_are_padded_on() -> None:
    verifier = verifier_of("post-norm")
    right, left = (verifier.encode(net_input_of([[5, 6], [7], []], is_left=is_left)) for is_left in (False, True))
    assert torch.equal(right.keys, left.keys) and right.is_empty.tolist() == left.is_empty.tolist() == [
        False,
        False,
        True,
    ]
    assert isinstance(SYMBOLS, Symbols) and right.width == left.width
    assert PAD == SYMBOLS.pad
