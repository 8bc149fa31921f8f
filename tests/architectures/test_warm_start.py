"""A student that starts from its teacher computes what the teacher computes, part by part."""

from argparse import Namespace
from typing import Any, Dict, Iterator, Tuple

import pytest
import torch
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.models.transformer import TransformerModel, base_architecture
from torch import Tensor

from nar_plugin.architectures import base, warm_start
from nar_plugin.methods import options
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.transformer import Layer, Stack
from tests import tiny
from tests.conftest import CRITERIONS

ALL = list(warm_start.PARTS)
KINDS = {name: ARCH_MODEL_REGISTRY[f"{name}_tiny"] for name in CRITERIONS}
STARTING = sorted(name for name, kind in KINDS.items() if not issubclass(kind, base.BuiltOn))
FREEZING = sorted(name for name in STARTING if KINDS[name].freezable)
SIDES = ("encoder", "decoder")
HAVE_POSITIONS = ("fertility_nat", "iterative_refinement")
"""Those whose decoders have attention by position."""


def stock(words: int = tiny.WORDS, seed: int = 7, **options: Any) -> Any:
    """A transformer of fairseq's of the size of the tiny students, with weights, biases and gains of every kind.

    Options without a side are those of both.
    """
    torch.manual_seed(seed)
    size = {"embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 2, "layers": 1, "normalize_before": False}
    both = {name: options.pop(name, value) for name, value in size.items()}
    of_sides = {f"{side}_{name}": value for side in SIDES for name, value in both.items()}
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
    return {"normalize_before": model.is_prenorm, "activation_fn": str(model.cfg.activation_fn)}


def student(arch: str, **options: Any) -> Any:
    return tiny.tiny_model(arch=f"{arch}_tiny", is_lively=False, **options)


def started(arch: str, **options: Any) -> Tuple[Any, Any]:
    """A student that has started, and its teacher."""
    model = student(arch, **options)
    teacher = stock(**like(model))
    model.warm_start(teacher, ALL)
    return model.eval(), teacher


def pairs(model: Any, teacher: Any) -> Iterator[Tuple[Stack, Any]]:
    """Every stack of a student, with what it took."""
    for _, stack in warm_start.stacks(model):
        yield stack, teacher.decoder if warm_start.has_source(stack) else teacher.encoder


def layers_of(model: Any, teacher: Any) -> Iterator[Tuple[Layer, Any]]:
    """Every layer of a student, with that of the teacher in the same place."""
    for stack, coder in pairs(model, teacher):
        yield from zip(stack.layers, coder.layers, strict=True)


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
        same(own.around_feed.norm(x), theirs.final_layer_norm(x))  # type: ignore[operator]
        if own.cross_attention is not None and own.around_cross is not None:
            attended = theirs.encoder_attn(y, memory, memory, static_kv=True)[0].transpose(0, 1)
            same(own.cross_attention(x, own.cross_attention.memory(source), None), attended)
            same(own.around_cross.norm(x), theirs.encoder_attn_layer_norm(x))
    assert kinds == {False, True}


def in_double(arch: str, is_prenorm: bool) -> Tuple[Any, Any]:
    """A student of three layers a stack that has started, and its teacher, with one epsilon and in double precision."""
    norm = {"post_norm": not is_prenorm} if arch.startswith("la") else {"normalize_before": is_prenorm}
    model = student(arch, encoder_layers=3, decoder_layers=3, **norm)
    teacher = stock(**like(model), layers=3)
    model.warm_start(teacher, ALL)
    for module in teacher.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-12
    return model.double(), teacher.double()


@pytest.mark.parametrize("arch", STARTING)
@pytest.mark.parametrize("is_prenorm", [False, True])
@torch.no_grad()
def test_a_whole_stack_computes_what_the_teachers_does(arch: str, is_prenorm: bool) -> None:
    """Also with highways, and with attention by position, but where a norm follows that. Inputs that are added after
    every layer (LaNMT's decoder) are left out here."""
    model, teacher = in_double(arch, is_prenorm)
    x, source, places = (states(*shape, seed=3).double() for shape in ((2, 5), (2, 4), (1, 5)))
    y, memory = x.transpose(0, 1), source.transpose(0, 1)
    compared = set()
    for stack, coder in pairs(model, teacher):
        is_decoder = warm_start.has_source(stack)
        if arch in HAVE_POSITIONS and is_decoder and not is_prenorm:
            continue
        stack.has_input_skip, expected = False, y
        for theirs in coder.layers:
            expected = theirs(expected, memory)[0] if is_decoder else theirs(expected, None)
        if coder.layer_norm is not None:
            expected = coder.layer_norm(expected)
        memories = stack.memory(source) if is_decoder else None
        same(stack(x, None, memories, None, places[0]), expected.transpose(0, 1))
        compared.add(is_decoder)
    assert compared == {False, True} or arch in HAVE_POSITIONS


@pytest.mark.parametrize("arch", STARTING)
@pytest.mark.parametrize("is_shared", [False, True])
def test_each_table_of_words_is_that_of_its_use(arch: str, is_shared: bool) -> None:
    """Of a teacher with three tables; a student's table of several uses is the teacher's of the target."""
    model = student(arch, share_all_embeddings=is_shared)
    teacher = stock(**like(model), share_decoder_input_output_embed=False)
    model.warm_start(teacher, ALL)
    size = model.symbols.size
    source, target = teacher.encoder.embed_tokens.weight, teacher.decoder.embed_tokens.weight
    assert not source.equal(target) and not target.equal(teacher.decoder.output_projection.weight)
    assert model.target_embedding.tokens.weight[:size].equal(target)
    assert model.source_embedding.tokens.weight[:size].equal(target if is_shared else source)
    own_output = {"latent_transformer": "output", "lanmt_continuous": "output", "iterative_refinement": "first_output"}
    if arch in own_output:
        output = getattr(model, own_output[arch]).weight
        assert output.equal(target if is_shared else teacher.decoder.output_projection.weight)


def test_the_row_of_the_mask_begins_as_the_mean_of_all_words() -> None:
    model, teacher = started("mask_predict")
    rows = teacher.decoder.embed_tokens.weight
    same(model.target_embedding.tokens.weight[model.symbols.mask], rows.mean(0))
    assert len(model.target_embedding.tokens.weight) == len(rows) + 1


def test_a_teacher_in_half_precision_gives_the_values_that_it_has() -> None:
    model = student("mask_predict")
    teacher = stock(**like(model)).half()
    model.warm_start(teacher, ALL)
    own, theirs = model.encoder.layers[0].feed_forward.inner.weight, teacher.encoder.layers[0].fc1.weight
    assert own.dtype == torch.float32 and own.equal(theirs.float())


@pytest.mark.parametrize(("ours", "theirs", "chosen"), [(2, 4, [0, 2]), (3, 3, [0, 1, 2]), (4, 6, [0, 1, 3, 4])])
def test_of_more_layers_every_second_one_is_taken_and_the_line_says_so(ours: int, theirs: int, chosen: Any) -> None:
    model = student("mask_predict", encoder_layers=ours, decoder_layers=ours)
    teacher = stock(**like(model), layers=theirs)
    told = model.warm_start(teacher, ALL)
    for stack, coder in pairs(model, teacher):
        for layer, i in zip(stack.layers, chosen, strict=True):
            assert layer.feed_forward.inner.weight.equal(coder.layers[i].fc1.weight)  # type: ignore[union-attr]
    numbers = " ".join(str(i + 1) for i in chosen)
    assert (f"decoder: {ours} layers, which took {numbers} of the teacher's {theirs}" in told) == (ours != theirs)


@pytest.mark.parametrize("arch", ["latent_transformer", "lanmt_continuous"])
def test_prior_and_posterior_begin_equal(arch: str) -> None:
    """With random heads the teacher's states would put them far apart; the heads have a gradient all the same."""
    model = student(arch)
    teacher = stock(**like(model))
    rows = tiny.random_rows(4, 6, seed=2)
    sample = tiny.sample_of(rows, rows)
    divergences = []
    for is_started in (False, True):
        if is_started:
            model.warm_start(teacher, ALL)
        terms: Any = {term.name: term for term in tiny.terms_of(model, sample)}
        divergences.append(terms["kl"].values.sum().item())
    assert divergences[0] > 0 and divergences[1] == 0
    learn(model, rows)
    assert all(head.weight.abs().sum() > 0 for head in model.gaussian_heads)


def changed(model: Any, before: Dict[str, Tensor]) -> set[str]:
    """The parts of a model of which weights are no longer what they were."""
    return {name.split(".")[0] for name, weight in model.state_dict().items() if not weight.equal(before[name])}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["embeddings"], {"source_embedding", "target_embedding", "output"}),
        (["encoder"], {"encoder", "posterior.target"}),
        (["decoder"], {"decoder", "posterior.source"}),
        (["embeddings", "encoder"], {"source_embedding", "target_embedding", "output", "encoder", "posterior.target"}),
    ],
)
def test_only_the_parts_that_are_asked_for_are_taken(parts: Any, expected: set[str]) -> None:
    """LaNMT's posterior encodes the target, and attends to it: one stack takes the encoder, the other the decoder."""
    model = student("latent_transformer")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.warm_start(stock(**like(model)), parts)
    found = {name for name, weight in model.state_dict().items() if not weight.equal(before[name])}
    heads = {"prior.weight", "posterior.output.weight"}
    assert {name for name in before if name.startswith(tuple(expected))} | heads == found


def test_a_part_that_there_is_not_is_refused() -> None:
    model = student("mask_predict")
    with pytest.raises(UsageError, match=r"--warm-start-parts head,neck: the parts are embeddings, encoder, decoder$"):
        model.warm_start(stock(), ["neck", "encoder", "head"])


def test_the_line_says_how_much_is_the_teachers() -> None:
    """Counted here by what changed: all of a model but its own heads, tables and positions."""
    model = student("mask_predict", normalize_before=True)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    told = model.warm_start(stock(**like(model)), ALL)
    taken = {name: weight for name, weight in model.named_parameters() if not weight.equal(before[name])}
    kept = {"source_embedding.positions.weight", "target_embedding.positions.weight", "length_table.weight"}
    assert before.keys() - taken.keys() == kept
    share = (sum(weight.numel() for weight in taken.values()) - 32) / sum(map(torch.numel, before.values()))
    assert told == f"{len(taken)} tensors, {share:.1%} of the weights, are the teacher's"


@pytest.mark.parametrize(
    ("options", "reason", "is_taken"),
    [
        ({"normalize_before": True}, "norm after each block, the teacher's before each block", set()),
        ({"attention_heads": 4}, "attention heads 2, the teacher's 4", {"feed_forward"}),
        ({"ffn_embed_dim": 48}, "width of the feed-forward block 64, the teacher's 48", {"attention"}),
        ({"activation_fn": "relu"}, "activation gelu, the teacher's relu", {"feed_forward", "attention"}),
    ],
)
def test_what_does_not_fit_is_left_as_it_is_and_named(options: Any, reason: str, is_taken: set[str]) -> None:
    model = student("mask_predict")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    told = model.warm_start(stock(**{**like(model), **options}), ALL)
    for side in SIDES:
        assert f"{side}: {reason}" in told
    for block in ("feed_forward", "self_attention"):
        weights = [name for name in before if block in name]
        is_other = {not model.state_dict()[name].equal(before[name]) for name in weights}
        assert is_other == {block.removeprefix("self_") in is_taken}


def test_a_norm_that_the_teacher_lacks_is_named() -> None:
    model = student("lanmt_continuous")
    told = model.warm_start(stock(**like(model), no_decoder_final_norm=True), ALL)
    assert "decoder: a norm behind the last layer, which the teacher lacks" in told and "encoder: a norm" not in told


def test_a_teacher_of_another_width_is_refused_in_one_line() -> None:
    model = student("mask_predict")
    reason = "width 32, the teacher's 64"
    expected = f"nothing of the teacher fits; embeddings: {reason}; encoder: {reason}, width of the feed-forward block"
    with pytest.raises(UsageError, match=expected) as raised:
        model.warm_start(stock(**like(model), embed_dim=64, ffn_embed_dim=128), ALL)
    assert "\n" not in str(raised.value)


def test_a_teacher_with_norms_elsewhere_is_refused_where_only_layers_are_asked_for() -> None:
    model = student("mask_predict")
    with pytest.raises(UsageError, match="nothing of the teacher fits; encoder: norm after"):
        model.warm_start(stock(**{**like(model), "normalize_before": True}), ["encoder", "decoder"])


def test_a_model_that_stands_on_another_takes_nothing() -> None:
    with pytest.raises(UsageError, match="--warm-start: this --arch stands on --latent-model"):
        student("lanmt_refiner").warm_start(stock(), ALL)


# A frozen encoder


def rows_of(count: int) -> Any:
    return tiny.random_rows(count, 9, seed=4)


@torch.no_grad()
def states_of(model: Any, teacher: Any, rows: Any) -> Tuple[Tensor, Tensor]:
    """(B, S, D) of the student's encoder and of the teacher's, 0 at pads, the student as it is in a decode."""
    batch = tiny.net_input_of(rows)
    seen = {}
    hook = model.encoder.layers[-1].register_forward_hook(lambda module, inputs, output: seen.update(top=output))
    model.eval().encode(batch)
    hook.remove()
    is_token = (batch["src_tokens"] != tiny.PAD)[..., None]
    theirs = teacher.encoder(batch["src_tokens"], batch["src_lengths"])["encoder_out"][0].transpose(0, 1)
    return model.encoder.norm(seen["top"]) * is_token, theirs * is_token


@pytest.mark.parametrize("arch", FREEZING)
@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("initialization", ["bert", "xavier"])
def test_a_frozen_encoder_has_the_teachers_states_before_and_after_training(
    arch: str, is_shared: bool, initialization: str
) -> None:
    """On 100 sources, whatever the student's own positions and scale; what is not frozen learns."""
    own = {"initialization": initialization, "positions": "learned" if initialization == "bert" else "sinusoidal"}
    model, teacher = started(arch, freeze="encoder", share_all_embeddings=is_shared, **own, dropout=0.3)
    rows = rows_of(100)
    torch.testing.assert_close(*states_of(model, teacher, rows), atol=1e-5, rtol=0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    learn(model, rows)
    torch.testing.assert_close(*states_of(model, teacher, rows), atol=1e-5, rtol=0)
    assert not {"encoder", "source_embedding"} & changed(model, before)
    assert {"decoder", "target_embedding"} <= changed(model, before)


def learn(model: Any, rows: Any) -> None:
    """Two updates, with dropout."""
    loss_of = tiny.criterion_of(model)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    model.train()
    for epoch in (1, 2):
        loss, size, _ = loss_of(model, tiny.sample_of(rows, rows, epoch=epoch))
        optimizer.zero_grad()
        (loss / size).backward()
        optimizer.step()


@pytest.mark.parametrize("arch", FREEZING)
def test_what_is_frozen_has_neither_gradient_nor_dropout_and_all_else_has_both(arch: str) -> None:
    model, _ = started(arch, freeze="encoder", share_all_embeddings=True, dropout=0.3)
    learn(model, rows_of(8))
    frozen = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(("encoder.", "source_embedding"))}
    assert model.training and model.decoder.training
    assert not any(module.training for module in (*model.encoder.modules(), *model.source_embedding.modules()))
    model.eval()
    assert not model.training and not model.decoder.training


def test_a_table_that_is_frozen_for_the_encoder_is_not_the_one_that_learns() -> None:
    model, _ = started("latent_transformer", freeze="encoder", share_all_embeddings=True)
    assert model.source_embedding.tokens is not model.target_embedding.tokens
    assert model.target_embedding.tokens is model.output and model.output.weight.requires_grad


@pytest.mark.parametrize("arch", FREEZING)
def test_a_student_with_a_frozen_encoder_decodes_alone_as_in_any_batch(arch: str) -> None:
    model = tiny.tiny_model(arch=f"{arch}_tiny", freeze="encoder")
    refined = {"iterations": 2} if issubclass(model.decode_options, options.Refinement) else {}
    tiny.decode_in_any_batch(model, tiny.random_rows(6, 9, seed=5), **refined)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"layers": 2}, "encoder: 1 layers, which took 1 of the teacher's 2"),
        ({"activation_fn": "gelu"}, "activation relu, the teacher's gelu"),
        ({"normalize_before": False}, "norm before each block, the teacher's after each block"),
        ({"encoder_learned_pos": True}, "other embeddings"),
        ({"no_scale_embedding": True}, "other embeddings"),
        ({"layernorm_embedding": True}, "other embeddings"),
        ({"no_token_positional_embeddings": True}, "other embeddings"),
    ],
)
def test_an_encoder_that_would_not_be_the_teachers_is_not_frozen(options: Any, reason: str) -> None:
    model = student("lanmt_continuous", freeze="encoder")
    with pytest.raises(UsageError, match=f"--freeze encoder: the student's would not be the teacher's; .*{reason}"):
        model.warm_start(stock(**{**like(model), **options}), ALL)


@pytest.mark.parametrize("parts", [["encoder"], ["embeddings", "decoder"]])
def test_an_encoder_is_not_frozen_without_its_layers_and_its_table(parts: Any) -> None:
    model = student("lanmt_continuous", freeze="encoder")
    with pytest.raises(UsageError, match="--freeze encoder: the student's would not be the teacher's"):
        model.warm_start(stock(**like(model)), parts)


def test_an_encoder_that_reads_more_than_the_source_is_not_frozen() -> None:
    with pytest.raises(UsageError, match="--freeze encoder: that of --arch mask_predict_tiny has inputs of its own"):
        student("mask_predict", freeze="encoder")
