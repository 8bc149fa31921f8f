"""The checks of mask-predict's mathematics bite: each of these single-line mistakes makes one of them fail.

A mistake is made in the text of the one module of ``methods/`` that holds the line, which is then run; its functions
take the place of the true ones for the length of one check. Nothing on disk is touched.
"""

import importlib.util
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from nar_plugin.methods import mask_predict, prediction
from tests.architectures import test_mask_predict as whole
from tests.methods import test_mask_predict_masks as masks
from tests.methods import test_prediction as words

SOURCES = {module: Path(module.__file__).read_text(encoding="utf-8") for module in (mask_predict, prediction)}

MUTATIONS: list[tuple[str, str, Callable[[], None]]] = [
    ("passes).clamp(min=1)", "passes).clamp(min=0)", masks.test_decoding_counts_follow_the_paper),
    ("(lengths * (passes - step) //", "(lengths * (passes - step - 1) //", masks.test_decoding_counts_follow_the_paper),
    (
        "place[:most] < decoding",
        "place[:most] <= decoding",
        masks.test_padding_is_never_chosen_even_where_it_looks_least_confident,
    ),
    (
        "on_grid.argsort(dim=1, stable=True)",
        "on_grid.argsort(dim=1, stable=True, descending=True)",
        masks.test_the_least_confident_positions_are_chosen_lowest_first,
    ),
    (
        "on_grid.argsort(dim=1, stable=True)",
        "on_grid.flip(1).argsort(dim=1, stable=True)",
        masks.test_equal_confidences_are_chosen_from_the_left,
    ),
    (
        ".masked_fill_(place >= lengths[:, None], torch.inf)",
        "",
        masks.test_padding_is_never_chosen_even_where_it_looks_least_confident,
    ),
    (".round_()", "", masks.test_noise_of_arithmetic_does_not_choose_the_masks),
    ("2.0**-10", "2.0**-3", masks.test_a_hundredth_of_a_nat_is_a_difference),
    ("(lengths - 1).clamp(min=1)", "(lengths - 1)", masks.test_a_target_of_one_token_is_masked),
    (
        "(lengths - 1).clamp(min=1) if release_compat",
        "lengths if release_compat",
        masks.test_release_compat_masks_one_to_n_minus_one,
    ),
    (
        "if release_compat else lengths",
        "if not release_compat else lengths",
        masks.test_mask_counts_are_uniform_on_one_to_n,
    ),
    ("1 + (draw * most)", "(draw * most)", masks.test_mask_counts_are_uniform_on_one_to_n),
    ("fold(keys, 1), is_token", "fold(keys, 0), is_token", masks.test_every_subset_of_a_size_is_equally_frequent),
    ("(lengths - counts + 1)", "(lengths - counts)", masks.test_a_span_is_contiguous_and_starts_anywhere_it_fits),
    (
        "(place < (first + counts)",
        "(place <= (first + counts)",
        masks.test_a_span_is_contiguous_and_starts_anywhere_it_fits,
    ),
    (
        "log_probs = logits.float().log_softmax(-1)",
        "log_probs = logits.float().clone()",
        words.test_predictions_are_the_best_ids_with_the_models_own_probabilities,
    ),
    ("-torch.inf\n    best", "0.0\n    best", words.test_banned_ids_are_never_predicted_and_keep_their_mass),
    (
        "log_probs = logits.float().log_softmax(-1)",
        "log_probs = logits.log_softmax(-1)",
        words.test_half_precision_logits_are_scored_in_float32,
    ),
    # the same mistakes seen from outside, through a whole model
    ("chosen, chosen[:, :1])", "chosen, chosen)", lambda: whole.test_every_pass_masks_as_many_as_the_paper_says(10)),
    (
        "on_grid.argsort(dim=1, stable=True)",
        "on_grid.argsort(dim=1, stable=True, descending=True)",
        lambda: whole.test_fairseqs_own_loop_gives_the_same_hypotheses(4, 1),
    ),
    ("log_probs[..., symbol] = -torch.inf", "pass", lambda: whole.test_no_output_holds_a_mask_a_pad_or_a_begin(4)),
]


def run_source(module: types.ModuleType, text: str) -> types.ModuleType:
    """The module that the text makes, with the imports of the true one."""
    spec = importlib.util.spec_from_loader(module.__name__, loader=None)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    made.__package__ = module.__package__
    exec(compile(text, f"mutated {module.__name__}", "exec"), vars(made))
    return made


def put_in_place(module: types.ModuleType, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in vars(run_source(module, text)).items():
        if isinstance(value, types.FunctionType) or name.isupper():
            monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize(
    ("right", "wrong", "check"), MUTATIONS, ids=[f"{m[0]}->{m[1]}".replace("\n", " ") for m in MUTATIONS]
)
def test_a_mistake_is_found(right: str, wrong: str, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {module: text.count(right) for module, text in SOURCES.items() if right in text}
    assert list(counts.values()) == [1], "the line to be mutated has changed: bring this list up to date"
    (module,) = counts
    check()
    put_in_place(module, SOURCES[module].replace(right, wrong), monkeypatch)
    with pytest.raises(AssertionError):
        check()


def test_the_unchanged_text_passes_by_the_same_road(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, text in SOURCES.items():
        put_in_place(module, text, monkeypatch)
    assert prediction.most_probable.__code__.co_filename == "mutated nar_plugin.methods.prediction"
    for check in {check for _, _, check in MUTATIONS}:
        check()
