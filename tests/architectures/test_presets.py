"""The presets of the recipes have the sizes of the papers: parameters counted by hand, and in the recipes' table."""

import re
from typing import Any, Dict, Tuple

import pytest
import torch

from nar_plugin.methods.contract import UsageError
from tests import tiny
from tests.conftest import CRITERIONS
from tests.end_to_end.programs import ROOT

Sizes = Tuple[int, int, int, int]
TYPES = {"wmt14_en_de": 32_000, "wmt16_ro_en": 40_000, "iwslt16_de_en": 40_000, "iwslt14_de_en": 10_000}
"""Of the joint dictionaries, by the recipes' merges."""
PAPERS: Dict[str, Dict[str, Sizes]] = {
    "blockwise_transformer": {},  # of the size of its base
    "mask_predict": {
        "wmt14_en_de": (6, 512, 2048, 8),
        "wmt16_ro_en": (6, 512, 2048, 8),
        "iwslt16_de_en": (5, 278, 507, 2),
        "iwslt14_de_en": (5, 256, 1024, 4),
    },
    "ctc": {
        "wmt14_en_de": (6, 512, 2048, 8),
        "wmt16_ro_en": (6, 512, 2048, 8),
        "iwslt16_de_en": (5, 278, 507, 2),
        "iwslt14_de_en": (5, 256, 1024, 4),
    },
    "fertility_nat": {
        "wmt14_en_de": (6, 512, 512, 8),
        "wmt16_ro_en": (6, 512, 512, 8),
        "iwslt16_de_en": (5, 278, 507, 2),
        "iwslt14_de_en": (5, 256, 1024, 4),
    },
    "iterative_refinement": {
        "wmt14_en_de": (6, 512, 512, 8),
        "wmt16_ro_en": (6, 512, 512, 8),
        "iwslt16_de_en": (5, 278, 507, 2),
        "iwslt14_de_en": (5, 256, 1024, 4),
    },
    "latent_transformer": {
        "wmt14_en_de": (6, 512, 2048, 8),
        "wmt16_ro_en": (6, 512, 2048, 8),
        "iwslt16_de_en": (5, 278, 507, 2),
        "iwslt14_de_en": (5, 256, 1024, 4),
    },
    "lanmt_continuous": {
        "wmt14_en_de": (6, 512, 2048, 8),
        "wmt16_ro_en": (6, 256, 1024, 8),
        "iwslt16_de_en": (6, 256, 1024, 8),
        "iwslt14_de_en": (5, 256, 1024, 4),
    },
    "lanmt_refiner": {
        "wmt14_en_de": (6, 512, 2048, 8),
        "wmt16_ro_en": (6, 256, 1024, 8),
        "iwslt16_de_en": (4, 256, 1024, 8),
        "iwslt14_de_en": (6, 256, 1024, 4),
    },
}
"""Layers a stack (the decoder's, a refiner's), width, width of the feed-forward block, heads; others' sizes where a
paper has none of a corpus."""
POSITIONS = 1024


def test_every_architecture_has_its_papers_sizes_here() -> None:
    assert set(PAPERS) == set(CRITERIONS)


def by_hand(name: str, size: str) -> int:
    """Parameters of the products and tables that the paper names; biases and norms left out."""
    types, (layers, dim, hidden, _) = TYPES[size], PAPERS[name][size]
    attention, feed = 4 * dim * dim, 2 * dim * hidden
    encoder, decoder = attention + feed, 2 * attention + feed
    if name == "latent_transformer":  # the posterior is as large as encoder and decoder; lengths have embeddings
        return (types + POSITIONS) * dim + 2 * layers * (encoder + decoder) + dim * (2 * 16 + 8 + 100)
    if (
        name == "lanmt_continuous"
    ):  # an encoder of five layers; prior, posterior, decoder; WMT's output has its own table
        tables = (2 if size.startswith("wmt") else 1) * types * dim
        lengths = dim * 200 + 200 * 200 + 200 * 100
        return tables + 5 * encoder + 3 * layers * decoder + lengths + dim * (2 * 16 + 8)
    if name == "lanmt_refiner":
        return layers * decoder + dim * (8 + 8)
    if name == "ctc":
        return types * dim + layers * (encoder + decoder)
    if name == "fertility_nat":
        return types * dim + layers * (encoder + decoder + attention) + dim * 50
    if name == "mask_predict":  # learned positions of either side, lengths, and where the small presets have none
        tables = types * dim
        positions = (3 if dim == 512 else 1) * POSITIONS * dim
        return tables + positions + layers * (attention + feed) + layers * (2 * attention + feed)
    # a highway's gate is as large as its feed-forward block; two decoders, with attention by position
    heads = dim * dim + dim * 41
    return types * dim + heads + layers * (attention + 2 * feed) + 2 * layers * (3 * attention + 2 * feed)


def counted(name: str, size: str) -> Tuple[int, Sizes]:
    """Of a refiner, what it adds to the model that it stands on."""
    latent = name.replace("refiner", "continuous")
    with torch.device("meta"):
        model = tiny.tiny_model(
            *(3, TYPES[size] - 4),
            is_lively=False,
            arch=f"{latent}_{size}",
            longest=POSITIONS,
            share_all_embeddings=True,
        )
        cfg, layers, counted = model.cfg, model.cfg.decoder_layers, model
        assert cfg.encoder_ffn_embed_dim == cfg.decoder_ffn_embed_dim
        assert cfg.encoder_layers == (5 if latent == "lanmt_continuous" else layers)
        if name != latent:
            counted = tiny.tiny_refiner(f"{name}_{size}", model).network
            layers = len(counted.stack.layers)
    sizes = (layers, cfg.encoder_embed_dim, cfg.encoder_ffn_embed_dim, cfg.decoder_attention_heads)
    return sum(weight.numel() for weight in counted.parameters()), sizes


CASES = [(name, size) for name, found in PAPERS.items() for size in found]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_a_preset_has_the_parameters_of_the_papers_sizes(name: str, size: str) -> None:
    found, sizes = counted(name, size)
    assert sizes == PAPERS[name][size]
    assert found == pytest.approx(by_hand(name, size), rel=0.01)


def test_the_table_of_the_recipes_says_the_same() -> None:
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in re.findall(r"\| `(\w+)` \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \|", text)}
    for name, size in CASES:
        types, papers, ours = rows[f"{name}_{size}"]
        found, sizes = counted(name, size)
        assert types == f"{TYPES[size]:,}" and ours == f"{found / 1e6:.1f}"
        assert papers == f"{by_hand(name, size) / 1e6:.1f}"
    assert len(rows) == len(CASES)


@pytest.mark.parametrize(
    ("arch", "option", "value"),
    [
        *(("lanmt", "latent_size", value) for value in (0, -1)),
        *(("lanmt_continuous", name, -1) for name in ("prior_layers", "posterior_layers", "length_bonus")),
        ("lanmt_continuous", "length_bonus", float("nan")),
        *(("lanmt_refiner", name, -1) for name in ("start_noise", "rollout_start", "rollout_step_size")),
        *(("lanmt_refiner", name, 0) for name in ("refiner_layers", "delta_steps", "rollout_steps")),
        ("lanmt_refiner", "rollout_share", 7.0),
        *(("ctc", "upsample", value) for value in (0, -1)),
        *(
            ("ctc", "glance", value)
            for value in ("0.5", "0.5:", "0.5:0.1:0", "half:none", "1.5:0.1", "0.5:-0.1", "nan:0")
        ),
        ("ctc", "decoder_layers", -1),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_line(arch: str, option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}") as raised:
        tiny.tiny_model(arch=f"{arch}_tiny", **{option: value})
    assert "\n" not in str(raised.value)
