"""A student that starts from its teacher computes what the teacher computes, part by part."""

from argparse import Namespace
from typing import Any, Dict, Iterator, Tuple

import pytest
import torch
from fairseq.models.transformer import TransformerModel, base_architecture
from torch import Tensor

from nar_plugin.architectures import warm_start
from nar_plugin.methods.transformer import Layer
from tests import tiny
from tests.conftest import CRITERIONS

ALL = list(warm_start.PARTS)
STARTING = sorted(set(CRITERIONS) - {"lanmt_refiner"})
PRENORM = {"normalize_before": True}


def stock(words: int = tiny.WORDS, seed: int = 7, **options: Any) -> Any:
    """A transformer of fairseq's of the size of the tiny students, with weights, biases and gains of every kind."""
    torch.manual_seed(seed)
    size = {"embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 2, "layers": 1, **options.pop("both", {})}
    of_sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in size.items()}
    args = Namespace(**{"share_decoder_input_output_embed": True, **of_sides, **options})
    base_architecture(args)
    args.max_source_positions = args.max_target_positions = tiny.POSITIONS
    model: Any = TransformerModel.build_model(args, tiny.stand_in_task(words))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(1.0 if weight.dim() == 1 else 0.0, 0.3)
    return model.eval()


def like(model: Any) -> Dict[str, Any]:
    """Options of a teacher whose layers are made as the student's."""
    return {"both": {"normalize_before": model.is_prenorm}, "activation_fn": str(model.cfg.activation_fn)}


def started(arch: str, **options: Any) -> Tuple[Any, Any]:
    """A student that has started, and its teacher."""
    model = tiny.tiny_model(arch=f"{arch}_tiny", is_lively=False, **options)
    teacher = stock(**like(model))
    model.warm_start(teacher, ALL)
    return model.eval(), teacher


def layers_of(model: Any, teacher: Any) -> Iterator[Tuple[Layer, Any]]:
    """Every layer of a student of one layer a stack, with the layer that it took."""
    for _, stack in warm_start.stacks(model):
        own: Any = stack.layers[0]
        yield own, (teacher.encoder if own.cross_attention is None else teacher.decoder).layers[0]


def states(rows: int, width: int, seed: int) -> Tensor:
    """Of a variance at which the two epsilons of layer norms make no difference."""
    return 3.0 * torch.randn(rows, width, 32, generator=torch.Generator().manual_seed(seed))


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arch", STARTING)
@torch.no_grad()
def test_each_block_computes_what_the_teachers_does(arch: str) -> None:
    model, teacher = started(arch)
    x, source = states(2, 5, 1), states(2, 4, 2)
    y, memory = x.transpose(0, 1), source.transpose(0, 1)
    kinds = set()
    for own, theirs in layers_of(model, teacher):
        kinds.add(own.cross_attention is not None)
        same(own.self_attention(x, None), theirs.self_attn(y, y, y)[0].transpose(0, 1))
        same(own.around_self.norm(x), theirs.self_attn_layer_norm(x))
        same(own.feed_forward(x), theirs.fc2(theirs.activation_fn(theirs.fc1(x))))
        same(own.around_feed.norm(x), theirs.final_layer_norm(x))
        if own.cross_attention is not None:
            attended = theirs.encoder_attn(y, memory, memory, static_kv=True)[0].transpose(0, 1)
            same(own.cross_attention(x, own.cross_attention.memory(source), None), attended)
            same(own.around_cross.norm(x), theirs.encoder_attn_layer_norm(x))
    assert kinds == {False, True}
