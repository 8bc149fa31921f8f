"""The checks of the methods' mathematics bite: each of these single-line mistakes makes one of them fail.

A mistake is made in the text of the one module that holds the line, of ``methods/``, of what is taken from a teacher,
or of what a teacher learns from its student; the text is then run, and its code takes the place of the true one for the
length of one check. Nothing on disk is touched.
"""

import importlib.util
import inspect
import types
from collections.abc import Callable

import pytest
import torch

from nar_plugin.architectures import warm_start
from nar_plugin.methods import (
    alignments,
    autoregressive,
    blockwise_transformer,
    cache,
    ctc,
    deduplication,
    drafters,
    drafts,
    fertility_nat,
    gaussian,
    glancing,
    iterative_refinement,
    lanmt,
    lanmt_continuous,
    lanmt_refiner,
    latent_transformer,
    lengths,
    mask_predict,
    noise,
    prediction,
    prefix_beam,
    quantizers,
    schedules,
    shortlist,
    source_copy,
    speculative,
    transformer,
    unmasking,
    verification,
)
from nar_tools.jobs import selection
from nar_tools.text import nbest
from tests.architectures import test_blockwise_transformer as whole_blockwise
from tests.architectures import test_fertility_nat as whole_fertilities
from tests.architectures import test_iterative_refinement as whole_refinement
from tests.architectures import test_lanmt as whole_lanmt
from tests.architectures import test_lanmt_continuous as whole_continuous
from tests.architectures import test_lanmt_refiner as whole_refiner
from tests.architectures import test_latent_transformer as whole_codes
from tests.architectures import test_mask_predict as whole_mask_predict
from tests.architectures import test_shortlists as lists
from tests.architectures import test_warm_start as starts
from tests.criterions import test_elbo_length as elbo
from tests.generators import test_speculative as drafted
from tests.methods import test_alignments as sums
from tests.methods import test_autoregressive as searches
from tests.methods import test_cache as caches
from tests.methods import test_ctc_glimpse as glimpses
from tests.methods import test_deduplication as together
from tests.methods import test_drafts as lookups
from tests.methods import test_fertilities as fertilities
from tests.methods import test_gaussian as gaussians
from tests.methods import test_iterative_refinement_corruption as corruption
from tests.methods import test_lanmt_length_transform as transform
from tests.methods import test_lengths as classes
from tests.methods import test_mask_predict_masks as masks
from tests.methods import test_noise as draws
from tests.methods import test_prediction as words
from tests.methods import test_prefix_beam as beams
from tests.methods import test_quantizers as codes
from tests.methods import test_transformer as blocks
from tests.methods import test_unmasking as rules
from tests.methods import test_verification as verdicts
from tests.tools import test_em as em

copies_of_a_batch = fertilities.test_copies_of_a_batch_are_those_of_each_sentence
sums_that_can_be = fertilities.test_no_sum_is_beyond_twice_the_sentence_and_none_is_without_a_word
what_is_certain = fertilities.test_the_end_has_the_fertility_one_and_padding_none
vectors_of_a_length = fertilities.test_the_most_probable_fertilities_of_a_length_are_those_of_brute_force
fertilities_divergence = fertilities.test_a_divergence_is_that_of_its_definition
the_estimate = fertilities.test_the_estimate_is_on_average_the_gradient_of_the_expected_loss

Check = Callable[[], None]
Mutation = tuple[str, str, Check]

MODULES = (
    *(alignments, ctc, glancing, prefix_beam),
    *(
        mask_predict,
        iterative_refinement,
        fertility_nat,
        source_copy,
        lanmt,
        lanmt_continuous,
        lanmt_refiner,
        latent_transformer,
    ),
    *(autoregressive, quantizers, schedules),
    *(blockwise_transformer, drafters, drafts, speculative, verification),
    *(cache, deduplication, gaussian, lengths, noise, prediction, shortlist, transformer, unmasking, warm_start),
    *(nbest, selection),
)
SOURCES = {module: inspect.getsource(module) for module in MODULES}


# Checks of tests that take parameters and serve several mutations.


LEAST, MOST = {"min_len": 7}, {"max_len_a": 0.0, "max_len_b": 5}


def a_rule(rule: verification.Rule) -> None:
    verdicts.test_a_rule_accepts_what_a_loop_over_the_drafts_accepts(rule)


def the_end_is_exact() -> None:
    verdicts.test_the_end_is_exact_by_every_rule(verification.Rule(accept="distance", distance=2))


def samples(rule: str) -> None:
    verdicts.test_drafts_become_samples_of_the_verifier(rule, 2)


def n_grams() -> None:
    lookups.test_ngrams_are_looked_up_in_the_output_then_in_the_source(4)


def some_are_wrong() -> None:
    drafted.test_the_output_is_the_greedy_one_whatever_the_drafts_are(torch.float64, 0.3, 4)


def heads_say_what_is_further_on() -> None:
    whole_blockwise.test_the_loss_is_the_mean_over_heads_each_of_which_says_what_is_further_on({})


def a_dense_block_is_the_formula() -> None:
    whole_blockwise.test_heads_are_the_formula("dense", "no")


def a_beam_of_three() -> None:
    beams.test_a_beam_is_that_of_the_algorithm_as_written(3)


def the_best_alignment() -> None:
    sums.test_the_best_alignment_is_the_most_probable_of_all(0.0)


def refinement_in_any_batch() -> None:
    whole_refinement.test_a_hypothesis_does_not_depend_on_its_batch({})


def lanmt_in_any_batch() -> None:
    whole_lanmt.test_a_hypothesis_does_not_depend_on_its_batch({})


def continuous_in_any_batch() -> None:
    whole_continuous.test_a_hypothesis_does_not_depend_on_its_batch({})


def codes_in_any_batch() -> None:
    whole_codes.test_no_hypothesis_depends_on_its_batch("attending", "greedy")


def all_of_the_grid() -> None:
    codes.test_the_grid_has_all_its_codes((8, 5, 5, 5))


def no_trace_of_padding() -> None:
    codes.test_padding_leaves_no_trace("vq")


def statistics_of_training() -> None:
    codes.test_statistics_move_in_training_alone("sliced")


def codes_stay_in_use() -> None:
    codes.test_codes_stay_in_use(1.0, 40, 64)


def gradients_pass() -> None:
    codes.test_the_gradient_passes_straight_through("vq")


def canvases() -> None:
    whole_codes.test_lengths_of_canvas_and_codes(8)


def the_future_is_hidden() -> None:
    whole_codes.test_a_causal_decoder_does_not_see_what_it_predicts("fsq")


def residuals_are_embedded() -> None:
    codes.test_what_is_embedded_of_codes_is_what_was_quantised("residual")


def digits_of_codes() -> None:
    whole_codes.test_digits_of_a_code_are_predicted_each_by_a_softmax(2)


def codes_before() -> None:
    whole_codes.test_the_predictor_sees_the_codes_before("fsq")


def words_shuffled() -> None:
    whole_codes.test_words_are_hidden_and_shuffled()


def scores_in_any_batch() -> None:
    whole_refiner.test_a_hypothesis_does_not_depend_on_its_batch("score", {})


def energies_in_any_batch() -> None:
    whole_refiner.test_a_hypothesis_does_not_depend_on_its_batch("energy", {})


def scores_at_pads() -> None:
    whole_refiner.test_padding_moves_nothing_and_does_not_move("score")


def energies_at_pads() -> None:
    whole_refiner.test_padding_moves_nothing_and_does_not_move("energy")


def slopes_reach_every_weight() -> None:
    whole_refiner.test_every_weight_of_the_network_has_a_gradient("energy", 0.0, True)


def words_are_copied() -> None:
    fertilities.test_a_word_is_copied_as_often_as_its_fertility_says([2, 0, 1, 3], [0, 0, 2, 3, 3, 3])


def the_average() -> None:
    fertilities.test_the_most_probable_and_the_average_fertility([0.1, 0.2, 0.7], 2, 2)


def thirty_vectors_of_three_words() -> None:
    fertilities.test_a_search_finds_the_most_probable_vectors_best_first(30, 3)


def three_words_copied_to_seven() -> None:
    corruption.test_the_first_pass_copies_the_source_evenly(3, 7, [0, 0, 1, 1, 1, 2, 2])


def rates_of_two_refinements() -> None:
    corruption.test_the_first_refinement_reads_the_noisiest_text(2, [0.5, 0.1])


def layers_read_their_own() -> None:
    whole_refinement.test_a_decoder_layer_attends_to_its_own_encoder_layer(False)


def a_refinement_reads_both() -> None:
    whole_refinement.test_what_a_refinement_reads("both")


def the_kernel() -> None:
    transform.test_the_kernel_is_the_papers(6, 12)


def weights_sum_to_one() -> None:
    transform.test_rows_sum_to_one_on_the_source_and_are_zero_elsewhere(1.0)


def none_sees_itself() -> None:
    whole_refinement.test_a_masked_diagonal_hides_a_position_from_itself(6)


def inputs_are_added_after_every_layer() -> None:
    blocks.test_the_input_of_a_stack_may_be_added_after_every_layer(False)


def some_see_all_others() -> None:
    whole_refinement.test_both_decoders_see_all_positions_or_all_others(True, True)


def a_spread_of_zero() -> None:
    transform.test_a_spread_of_zero_gives_weights_too(False)


def replacements_are_any_word() -> None:
    corruption.test_a_replacement_is_any_word_wherever_it_was_chosen(False)


def blocks_are_the_teachers() -> None:
    starts.test_each_block_computes_what_the_teachers_does("latent_transformer")


def highways_pass_on_the_teachers_states() -> None:
    starts.test_a_whole_stack_computes_what_the_teachers_does("iterative_refinement", True)


def every_second_layer_is_taken() -> None:
    starts.test_of_more_layers_every_second_one_is_taken_and_the_line_says_so(2, 4, [0, 2])


def tables_by_their_use() -> None:
    starts.test_each_table_of_words_is_that_of_its_use("lanmt_continuous", False)


def a_shared_table_is_the_targets() -> None:
    starts.test_each_table_of_words_is_that_of_its_use("mask_predict", True)


def the_decoder_alone() -> None:
    starts.test_only_the_parts_that_are_asked_for_are_taken(["decoder"], {"decoder", "posterior.source"})


def heads_do_not_fit() -> None:
    heads = "attention heads 2, the teacher's 4"
    starts.test_what_does_not_fit_is_left_as_it_is_and_named({"attention_heads": 4}, heads, {"feed_forward"})


def rows_keep_what_they_keep() -> None:
    caches.test_rows_that_keep_different_numbers_of_words_go_on_as_their_own_words_alone(torch.float32, False, True)


def compaction_changes_nothing() -> None:
    caches.test_compaction_changes_no_later_state(torch.float32, False, True)


def by_definition(rule: str, value: float) -> Check:
    return lambda: rules.test_a_rule_masks_what_its_definition_says(rule, value, False)


def loop_by_definition(rule: str, value: float) -> Check:
    return lambda: whole_mask_predict.test_the_loop_does_what_a_rule_says_pass_by_pass(rule, value, 6)


def a_threshold_at_its_ends() -> None:
    rules.test_a_threshold_of_one_commits_a_word_a_pass_and_one_of_zero_all([0.0, -1e-7, 0.0, -2e-7])


MUTATIONS: dict[str, list[Mutation]] = {
    "alignments": [
        ("is_word[:, 1:] &= ", "is_word[:, 1:] |= ", sums.test_what_is_read_is_what_the_definition_reads),
        ("(said != blank) & is_canvas", "said != blank", sums.test_what_is_read_is_what_the_definition_reads),
        ("is_word.cumsum(1) - 1", "is_canvas.cumsum(1) - 1", sums.test_what_is_read_is_what_the_definition_reads),
        (
            "return lengths + (",
            "return lengths + 0 * (",
            sums.test_the_least_canvas_is_the_shortest_that_has_an_alignment,
        ),
        (
            "device=words.device) < lengths[:, None]\n    return lengths",
            "device=words.device) <= lengths[:, None]\n    return lengths",
            sums.test_the_least_canvas_is_the_shortest_that_has_an_alignment,
        ),
        (
            "said[:, 2:] != said[:, :-2]",
            "said[:, 2:] == said[:, :-2]",
            sums.test_the_sum_over_alignments_is_exact_and_nothing_where_there_are_none,
        ),
        (
            "skip.masked_fill(~can_skip, -torch.inf)",
            "skip",
            sums.test_the_sum_over_alignments_is_exact_and_nothing_where_there_are_none,
        ),
        ("ways[1:].logsumexp(0)", "ways[1:].amax(0)", sums.test_a_word_has_its_probability_given_the_words_before),
        (
            "torch.logaddexp(begun, entered[:, 1::2])",
            "torch.maximum(begun, entered[:, 1::2])",
            sums.test_a_word_has_its_probability_given_the_words_before,
        ),
        (
            "torch.where(is_canvas[..., None], found, beyond[:, None])",
            "found",
            sums.test_sums_do_not_depend_on_the_rows_beside_them_nor_on_padding,
        ),
        ("(2 * lengths - _ends", "(2 * lengths - 0 * _ends", the_best_alignment),
        ("reached = reached + emission\n        moves", "reached = emission\n        moves", the_best_alignment),
    ],
    "prefix_beam": [
        ("beam.of_blank[:, None], total[:, None]) + again", "total[:, None], total[:, None]) + again", a_beam_of_three),
        ("beam.of_blank[..., None], total[..., None]", "total[..., None], total[..., None]", a_beam_of_three),
        ("torch.logaddexp(beam.of_word + again, of_parent)", "beam.of_word + again", a_beam_of_three),
        ("new.masked_fill(is_there.any(1), -torch.inf)", "new", a_beam_of_three),
        ("(words == blank) | ~is_canvas[..., None]", "~is_canvas[..., None]", a_beam_of_three),
        (
            ".masked_fill(total == -torch.inf, NOBODY)",
            "",
            lambda: beams.test_a_beam_as_wide_as_all_words_ranks_them_by_their_sums(0),
        ),
        ("sizes=sizes + is_new", "sizes=sizes + 1", a_beam_of_three),
        ("noise.fold(key, word)", "noise.fold(key, 0 * word)", a_beam_of_three),
        ("words.scatter(2, sizes[", "words.scatter(2, sizes.clamp(min=1)[", a_beam_of_three),
    ],
    "glancing": [
        (
            "(ratio * wrong).long()",
            "(ratio * wrong).ceil().long()",
            lambda: glimpses.test_as_many_are_shown_as_the_share_of_wrong_positions_says(0.3),
        ),
    ],
    "ctc": [
        (
            "(said != aligned) & is_canvas",
            "said != aligned",
            lambda: glimpses.test_as_many_are_shown_as_the_share_of_wrong_positions_says(1.0),
        ),
        (".sum(1) * is_fitting", ".sum(1)", glimpses.test_nothing_is_shown_of_what_is_right_or_does_not_fit),
    ],
    "mask_predict": [
        ("max(1, count(", "max(0, count(", masks.test_a_word_is_masked_where_the_count_is_zero),
        ("n * (passes - step) //", "n * (passes - step - 1) //", masks.test_decoding_counts_follow_the_paper),
        (
            "place < counts[:, None]",
            "place <= counts[:, None]",
            masks.test_padding_is_never_chosen_even_where_it_looks_least_confident,
        ),
        (
            "steps.argsort(dim=1, stable=True)",
            "steps.argsort(dim=1, stable=True, descending=True)",
            masks.test_the_least_confident_positions_are_chosen_lowest_first,
        ),
        (
            "steps.argsort(dim=1, stable=True)",
            "steps.flip(1).argsort(dim=1, stable=True)",
            masks.test_equal_confidences_are_chosen_from_the_left,
        ),
        (
            "steps.masked_fill(~allowed, torch.inf)",
            "steps",
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
            "torch.log_softmax(log_probs, -1, out=log_probs)",
            "log_probs = log_probs.clone()",
            words.test_predictions_are_the_best_ids_with_the_models_own_probabilities,
        ),
        ("-torch.inf\n    return", "0.0\n    return", words.test_banned_ids_are_never_predicted_and_keep_their_mass),
        (
            "log_probs = logits.detach().float()",
            "log_probs = logits.detach()",
            words.test_half_precision_logits_are_scored_in_float32,
        ),
        # the same mistakes seen from outside, through a whole model
        (
            "chosen, chosen[:, :1])",
            "chosen, chosen)",
            lambda: whole_mask_predict.test_every_pass_masks_as_many_as_the_paper_says(10),
        ),
        (
            "steps.argsort(dim=1, stable=True)",
            "steps.argsort(dim=1, stable=True, descending=True)",
            lambda: whole_mask_predict.test_fairseqs_own_loop_gives_the_same_hypotheses(4, 1),
        ),
        (
            "log_probs[..., symbol] = -torch.inf",
            "pass",
            lambda: whole_mask_predict.test_no_output_holds_a_mask_a_pad_or_a_begin(4),
        ),
        (
            "F.pad(mask, (1, 0), value=True)",
            "F.pad(mask, (1, 0), value=False)",
            whole_mask_predict.test_padding_of_a_source_changes_neither_lengths_nor_tokens,
        ),
        (
            "logits[:, 0] = -torch.inf",
            "pass",
            whole_mask_predict.test_the_length_token_is_read_by_the_encoder_and_not_by_the_decoder,
        ),
        (
            "states[:, 1:]",
            "states[:, :-1]",
            whole_mask_predict.test_the_length_token_is_read_by_the_encoder_and_not_by_the_decoder,
        ),
        (
            "F.linear(states[:, 0]",
            "F.linear(states[:, -1]",
            whole_mask_predict.test_the_length_logits_are_tied_to_the_length_table,
        ),
        (
            "self.decoder(self.embedding(tokens), mask",
            "self.decoder(self.embedding(tokens), None",
            whole_mask_predict.test_padding_of_a_canvas_changes_no_output,
        ),
    ],
    "unmasking": [
        (
            "int(2**30 * math.cos(math.pi * step",
            "int(2**30 * math.sin(math.pi * step",
            rules.test_a_cosine_schedule_commits_little_at_first,
        ),
        (
            "math.pi * step / (2 * passes)",
            "math.pi * step / passes",
            rules.test_a_cosine_schedule_commits_little_at_first,
        ),
        ("(masked & (confidence <= limit))", "(confidence <= limit)", by_definition("threshold", 0.9)),
        ("confidence <= limit", "confidence < limit", a_threshold_at_its_ends),
        ("masked.sum(1) - 1)", "masked.sum(1))", a_threshold_at_its_ends),
        ("if value else -math.inf", "if value else 0.0", a_threshold_at_its_ends),
        ("rising(confidence, masked)", "rising(confidence, None)", by_definition("threshold", 0.9)),
        ("rising(confidence, masked)", "rising(-confidence, masked)", by_definition("threshold", 0.9)),
        ("rising(-uncertainty, masked)", "rising(uncertainty, masked)", by_definition("entropy", 1.0)),
        ("uncertainty.masked_fill(~masked, 0.0)", "uncertainty", by_definition("entropy", 1.0)),
        (
            ".cumsum(1).flip(1) - falling",
            ".cumsum(1).flip(1)",
            rules.test_entropy_is_spent_on_all_words_of_a_pass_but_the_last,
        ),
        ("before > value / GRID", "before >= value / GRID", by_definition("entropy", 0.0)),
        ("before > value / GRID", "before > value", by_definition("entropy", 1.0)),
        (
            "LEADS[3 * canvas.step //",
            "LEADS[2 * canvas.step //",
            rules.test_a_gap_ends_a_row_where_its_words_lead_on_average,
        ),
        ("7.5, 5.0, 2.5", "7.5, 4.0, 2.5", rules.test_a_gap_ends_a_row_where_its_words_lead_on_average),
        ("/ GRID * canvas.lengths", "/ GRID * canvas.confidence.size(1)", by_definition("gap", 0.6)),
        (
            "entr(log_probs.exp_()).sum(-1)",
            "entr(log_probs.exp_()).sum(-1) / 2",
            rules.test_evidence_is_what_its_name_says,
        ),
        ("scatter_(-1, best[..., None], -torch.inf)", "clone()", rules.test_evidence_is_what_its_name_says),
        (", counts == 0", ", counts <= 1", by_definition("entropy", 1.0)),
        ("max(1, int(counts.max()))", "max(1, int(counts.min()))", by_definition("entropy", 1.0)),
        # the same mistakes seen from outside, through a whole model
        ("self.predicted, True)", "self.predicted, False)", loop_by_definition("threshold", 0.9)),
        (", counts == 0", ", counts < 0", loop_by_definition("entropy", 4.0)),
    ],
    "iterative_refinement": [
        # what the first pass copies
        ("steps.round().long()", "steps.floor().long()", three_words_copied_to_seven),
        (
            "steps.round().long()",
            "(steps + 0.5).floor().long()",
            lambda: corruption.test_the_first_pass_copies_the_source_evenly(5, 9, [0, 0, 1, 2, 2, 2, 3, 4, 4]),
        ),
        ("place * last_source / last_target", "place * (last_source + 1) / last_target", three_words_copied_to_seven),
        (
            "torch.minimum(steps.round().long(), last_source).clamp(min=0)",
            "steps.round().long()",
            corruption.test_every_copied_place_is_in_the_source_and_no_row_goes_back,
        ),
        # how a reference is corrupted
        ("(refinements - 1 - i)", "i", rates_of_two_refinements),
        ("max(1, refinements)", "max(1, refinements - 1)", rates_of_two_refinements),
        (
            "lengths[:, None] - 1\n    keys",
            "lengths[:, None]\n    keys",
            corruption.test_every_word_is_chosen_at_probability_one,
        ),
        (
            "noise.uniform(keys, width) < rate",
            "noise.uniform(keys, width) > rate",
            corruption.test_no_probability_no_noise,
        ),
        (
            ".long().clamp(min=1), lengths - 1)",
            ".long(), lengths - 1)",
            lambda: corruption.test_a_fixed_count_of_words_is_chosen(0.0),
        ),
        (
            ".clamp(min=1), lengths - 1)",
            ".clamp(min=1), lengths)",
            lambda: corruption.test_a_fixed_count_of_words_is_chosen(1.0),
        ),
        ("~moves[:, :-1]", "~moves[:, 1:]", corruption.test_operations_follow_each_other_from_left_to_right),
        (
            "tokens.roll(-1, 1), met)",
            "tokens.roll(1, 1), met)",
            lambda: corruption.test_one_operation_on_two_words(corruption.SWAP, [11, 10]),
        ),
        ("drawn = first + (", "drawn = (", corruption.test_a_replacement_is_any_word),
        ("* (size - first)).long()", "* size).long()", corruption.test_a_replacement_is_any_word),
        ("noise.fold(keys, 2), tokens", "noise.fold(keys, 0), tokens", replacements_are_any_word),
        ("noise.fold(keys, 2), tokens", "noise.fold(keys, 1), tokens", replacements_are_any_word),
        (
            "noise.fold(keys, 2), tokens",
            "noise.fold(keys, 0), tokens",
            lambda: corruption.test_a_replacement_is_any_word_wherever_it_was_chosen(True),
        ),
        (
            "noise.fold(keys, 1), width) * 3)",
            "noise.fold(keys, 1), width) * 2)",
            lambda: corruption.test_every_operation_is_as_frequent_and_every_word_as_often_chosen(True),
        ),
        (
            "noise.fold(keys, 1), width) * 3)",
            "noise.fold(keys, 0), width) * 3)",
            lambda: corruption.test_every_operation_is_as_frequent_and_every_word_as_often_chosen(False),
        ),
        (
            "(lengths - 2).clamp(min=0)[:, None]",
            "(lengths - 1)[:, None]",
            lambda: corruption.test_specials_stay_where_they_are(True),
        ),
        # the networks
        (
            "self.embedding.dropout(copied), mask)",
            "self.embedding.dropout(copied), None)",
            lambda: whole_refinement.test_padding_of_a_source_changes_no_length("mlp"),
        ),
        (
            "mean_over(read, is_source)",
            "read.mean(1)",
            lambda: whole_refinement.test_padding_of_a_source_changes_no_length("mlp"),
        ),
        (
            "if self.reads_all else states[-1]",
            "if not self.reads_all else states[-1]",
            whole_refinement.test_the_linear_head_reads_all_states_and_the_other_two_layers_the_top,
        ),
        (
            "[copied, *states]",
            "states",
            whole_refinement.test_the_linear_head_reads_all_states_and_the_other_two_layers_the_top,
        ),
        (
            "read = read.detach()",
            "pass",
            lambda: whole_refinement.test_where_the_length_teaches_the_encoder({"stop_gradient": "length"}, False),
        ),
        ("states[-1] if self.attends_top else states", "states[-1]", layers_read_their_own),
        ("(later if self.first is self.later else self.first.memory(states))", "later", layers_read_their_own),
        (
            "self.embedding.embed(source)",
            "self.embedding.tokens(source)",
            whole_refinement.test_the_first_pass_reads_the_copied_source,
        ),
        (
            "chosen + self.embedding.places(places.size(1))",
            "chosen",
            whole_refinement.test_the_first_pass_reads_the_copied_source,
        ),
        (
            "self.embedding.scale * self.embedding.tokens(tokens)",
            "self.embedding.tokens(tokens)",
            a_refinement_reads_both,
        ),
        ("read = read + hidden", "pass", a_refinement_reads_both),
        ("seen = mask\n", "seen = None\n", refinement_in_any_batch),
        ("if self.is_blind:", "if False:", some_see_all_others),
        (
            "if self.is_blind:",
            "if True:",
            lambda: whole_refinement.test_both_decoders_see_all_positions_or_all_others(False, False),
        ),
        ("device=x.device) if mask is None else mask)", "device=x.device))", some_see_all_others),
        ("seen, memory, is_source, self", "mask, memory, is_source, self", some_see_all_others),
        ("seen, memory, is_source, self", "seen, memory, None, self", refinement_in_any_batch),
    ],
    "lanmt": [
        # the length transform
        ("targets * sizes / lengths", "targets * (sizes - 1) / lengths", the_kernel),
        ("(2 * sigma.float().square())", "sigma.float().square()", the_kernel),
        ("sigma.float().square())", "sigma.float())", transform.test_the_spread_is_learnt_and_its_sign_means_nothing),
        ("else distance.square()", "else distance.abs()", the_kernel),
        ("2.0 ** distance", "2.0 ** -distance", transform.test_the_prefix_kernel_is_that_of_the_released_code),
        ("logits.masked_fill(~is_source[:, None], -torch.inf)", "logits", weights_sum_to_one),
        ("weights.masked_fill((targets >= lengths[:, None])[..., None], 0.0)", "weights", weights_sum_to_one),
        ("targets >= lengths", "targets > lengths", weights_sum_to_one),
        (".clamp(min=1e-8)", "", a_spread_of_zero),
        (
            "enabled=False):  # which",
            'enabled=torch.is_autocast_enabled("cpu")):  # which',
            transform.test_the_product_is_taken_in_float32_under_autocast_too,
        ),
        # the networks
        ("self.encoder(embedded, mask)", "self.encoder(embedded, None)", lanmt_in_any_batch),
        (
            "self.decoder.memory(states), mean",
            "self.decoder.memory(embedded), mean",
            whole_lanmt.test_the_decoders_memory_is_made_of_the_encoders_states,
        ),
        ("self.prior(states)", "self.prior(embedded)", whole_lanmt.test_the_prior_is_read_from_the_encoders_states),
        (
            "mean, std = gaussian.split(",
            "std, mean = gaussian.split(",
            whole_lanmt.test_the_prior_is_read_from_the_encoders_states,
        ),
        ("self.source(embedded, mask, memory", "self.source(embedded, None, memory", lanmt_in_any_batch),
        (
            "mask, memory, is_token)",
            "mask, memory, None)",
            whole_lanmt.test_nothing_stands_beyond_the_length_and_the_posterior_does_not_look_there,
        ),
        (
            "self.target(target, is_token)",
            "self.target(target, None)",
            whole_lanmt.test_nothing_stands_beyond_the_length_and_the_posterior_does_not_look_there,
        ),
        (
            "self.source.memory(self.target(target, is_token))",
            "self.source.memory(target)",
            whole_lanmt.test_every_part_has_a_gradient,
        ),
        (
            "mean_over(lifted + states, is_source)",
            "mean_over(states, is_source)",
            whole_lanmt.test_the_length_may_change_from_step_to_step,
        ),
        (
            "mean_over(lifted + states, is_source)",
            "(lifted + states).mul(is_source[..., None]).mean(1)",
            lambda: elbo.test_the_loss_is_the_sum_of_its_parts(0.0),
        ),
        (
            "mean_over(lifted + states, is_source)",
            "(lifted + states).mean(1)",
            whole_lanmt.test_the_length_is_read_from_the_mean_of_latents_and_states_over_the_source,
        ),
        (
            "mean_over(lifted + states, is_source)",
            "mean_over(lifted, is_source)",
            whole_lanmt.test_the_length_is_read_from_the_mean_of_latents_and_states_over_the_source,
        ),
        (
            "mean_over(lifted + states, is_source)",
            "mean_over(lifted + states, is_source) * is_source.sum(1, keepdim=True)",
            whole_lanmt.test_the_length_is_read_from_the_mean_of_latents_and_states_over_the_source,
        ),
        (
            "0.5**0.5 * placed",
            "0.5 * placed",
            whole_lanmt.test_the_decoder_reads_placed_latents_with_positions_and_the_length,
        ),
        (
            "+ 0.5 * (self.embedding.places(width)",
            "+ (self.embedding.places(width)",
            whole_lanmt.test_the_decoder_reads_placed_latents_with_positions_and_the_length,
        ),
        (
            "self.embedding.places(width) + ",
            "",
            whole_lanmt.test_the_decoder_reads_placed_latents_with_positions_and_the_length,
        ),
        (
            "self.lengths(lengths)[:, None])",
            "self.lengths(lengths - 1)[:, None])",
            whole_lanmt.test_the_decoder_reads_placed_latents_with_positions_and_the_length,
        ),
        (" + self.lengths(lengths)[:, None])", ")", whole_lanmt.test_every_part_has_a_gradient),
        (
            "sigma, self.is_prefix, kind)\n",
            "sigma.detach(), self.is_prefix, kind)\n",
            whole_lanmt.test_every_part_has_a_gradient,
        ),
        (
            "sigma, self.is_prefix, kind)\n",
            "sigma, kind=kind)\n",
            whole_lanmt.test_the_released_kernel_gives_something_else,
        ),
        (
            "self.decoder(read, mask, memory, source_mask)",
            "self.decoder(read, None, memory, source_mask)",
            lanmt_in_any_batch,
        ),
        ("self.decoder(read, mask, memory, source_mask)", "self.decoder(read, mask, memory, None)", lanmt_in_any_batch),
    ],
    "lanmt_continuous": [
        (
            "states = self.encoder(self.embedding(source), mask)",
            "states = self.encoder(self.embedding(source), None)",
            continuous_in_any_batch,
        ),
        (
            "mean_over(states, is_source)",
            "states.mean(1)",
            continuous_in_any_batch,
        ),
        (
            "mean_over(states, is_source)",
            "states[:, 0]",
            whole_continuous.test_the_length_is_read_from_the_mean_of_the_states_over_the_source,
        ),
        (
            "mean_over(states, is_source)",
            "mean_over(states, is_source) * is_source.sum(1, keepdim=True)",
            whole_continuous.test_the_length_is_read_from_the_mean_of_the_states_over_the_source,
        ),
        (
            "self.length_head(mean_over(states, is_source)).float().log_softmax(1)",
            "self.length_head(mean_over(states, is_source)).float()",
            whole_continuous.test_the_length_is_read_from_the_mean_of_the_states_over_the_source,
        ),
        (
            "self.length_head(mean_over(states, is_source)).float().log_softmax(1)",
            "self.length_head(mean_over(states, is_source)).float().log_softmax(0)",
            whole_continuous.test_the_length_is_read_from_the_mean_of_the_states_over_the_source,
        ),
        ("self.prior.memory(states)", "self.decoder.memory(states)", whole_continuous.test_every_part_has_a_gradient),
        (
            "self.embedding.places(is_token.size(1)).expand(len(is_token), -1, -1)",
            "self.embedding.places(1).expand(len(is_token), is_token.size(1), -1)",
            whole_continuous.test_the_prior_knows_positions_and_the_source_only,
        ),
        ("self.embedding.dropout(places), mask", "self.embedding.dropout(places), None", continuous_in_any_batch),
        ("dropout(places), mask, memory, is_source)", "dropout(places), mask, memory, None)", continuous_in_any_batch),
        (
            "self.posterior(self.embedding(target), mask",
            "self.posterior(self.embedding(target), None",
            continuous_in_any_batch,
        ),
        (
            "self.embedding(target), mask, memory, is_source)",
            "self.embedding(target), mask, memory, None)",
            continuous_in_any_batch,
        ),
        (
            "self.decoder(self.lift(latents.to(memory[0][0].dtype)), mask",
            "self.decoder(self.lift(latents.to(memory[0][0].dtype)), None",
            whole_continuous.test_latents_below_padding_move_nothing,
        ),
        (
            "self.decoder(self.lift(latents.to(memory[0][0].dtype))",
            "self.decoder(self.lift(latents) + self.lift(latents.new_ones(latents.shape)).cumsum(1)",
            whole_continuous.test_the_prior_knows_positions_and_the_source_only,
        ),
        (
            "LENGTH_WIDTH = 200",
            "LENGTH_WIDTH = 100",
            whole_mask_predict.test_names_shapes_and_counts_of_parameters_are_those_written_down,
        ),
        (
            "nn.Linear(dim, LENGTH_WIDTH), nn.ELU()",
            "nn.Linear(dim, LENGTH_WIDTH), nn.ReLU()",
            whole_continuous.test_the_length_predictor_has_two_hidden_layers_of_exponential_linear_units,
        ),
        (
            "nn.Linear(LENGTH_WIDTH, LENGTH_WIDTH), nn.ELU()",
            "nn.Linear(LENGTH_WIDTH, LENGTH_WIDTH)",
            whole_continuous.test_the_length_predictor_has_two_hidden_layers_of_exponential_linear_units,
        ),
        (
            "nn.ELU(), nn.Linear(LENGTH_WIDTH, LENGTH_WIDTH), nn.ELU()",
            "nn.ELU()",
            whole_mask_predict.test_names_shapes_and_counts_of_parameters_are_those_written_down,
        ),
    ],
    "blockwise_transformer": [
        ("return target[:, head:], is_token[:, head:]", "return target, is_token", heads_say_what_is_further_on),
        ("F.relu(self.inner(states))", "self.inner(states)", a_dense_block_is_the_formula),
        (
            "states[..., None, :] + self.dropout(outputs)",
            "self.dropout(outputs)",
            a_dense_block_is_the_formula,
        ),
        ("rule.min_block - 1)", "rule.min_block)", lambda: a_rule(verification.Rule(min_block=3))),
        ("(log_probs > own)", "(log_probs >= own)", lambda: a_rule(verification.Rule(accept="top-k", top_k=3))),
        (".abs() <= rule.distance", ".abs() < rule.distance", lambda: a_rule(verification.Rule(accept="distance"))),
        ("& (said != eos)", "", the_end_is_exact),
        ("is_right & is_draft)", "is_right)", lambda: a_rule(verification.Rule())),
        ("draws < ratio", "draws < 1", lambda: samples("tokens")),
        ("(probs - draft_probs).clamp(min=0.0)", "(probs - draft_probs).abs()", lambda: samples("tokens")),
        ("share[:, None] * there", "there", lambda: samples("blocks")),
        ("- walk.cummax(1).values", "", lambda: verdicts.test_a_block_is_judged_as_the_algorithm_is_written(3)),
        (
            "(rest + 1 - share)",
            "(rest + share)",
            lambda: verdicts.test_a_block_is_judged_as_the_algorithm_is_written(3),
        ),
        ("+ (ends > place[:, None])", "", lookups.test_a_rejected_sentence_goes_on_behind_its_longest_agreement),
        ("(there == said) | ", "", lookups.test_a_rejected_sentence_goes_on_behind_its_longest_agreement),
        ("ends >= before[:, None]", "ends > before[:, None]", n_grams),
        ("torch.cat([source, border], 1)", "source", n_grams),
        (
            "steps < plan.shortest",
            "steps <= plan.shortest",
            lambda: drafted.test_limits_and_penalties_are_fairseqs(LEAST),
        ),
        (
            "steps >= plan.longest, s",
            "steps > plan.longest, s",
            lambda: drafted.test_limits_and_penalties_are_fairseqs(MOST),
        ),
        ("reading.kept((rank <= count", "reading.kept((rank < count", some_are_wrong),
        ("state.count[:, None] + rank", "state.count[:, None] + 0 * rank", some_are_wrong),
        ("is_said &= is_end.cumsum(1) - is_end.long() == 0", "pass", some_are_wrong),
        (
            "rank <= state.taken[:, None]",
            "rank < state.taken[:, None]",
            drafted.test_what_a_small_model_reads_is_what_was_accepted,
        ),
        ("state.taken == width", "state.taken > width", drafted.test_what_a_small_model_reads_is_what_was_accepted),
    ],
    "lanmt_refiner": [
        ("step.masked_fill(~mask[..., None], 0.0)", "step", scores_at_pads),
        (
            "self.stack(self.lift(latents.to(memory[0][0].dtype)), mask",
            "self.stack(self.lift(latents.to(memory[0][0].dtype)), None",
            scores_at_pads,
        ),
        (
            "self.stack(self.lift(latents.to(memory[0][0].dtype)), mask, memory, is_source)",
            "self.stack(self.lift(latents.to(memory[0][0].dtype)), mask, memory, None)",
            scores_in_any_batch,
        ),
        ("(states * mask[..., None]).sum(1) / mask", "states.sum(1) / mask", energies_at_pads),
        ("/ mask.sum(1, keepdim=True).clamp(min=1)", "/ mask.size(1)", energies_in_any_batch),
        ("states.mean(1)", "states.sum(1)", energies_in_any_batch),
        (
            "return torch.autograd.grad(",
            "return -torch.autograd.grad(",
            whole_refiner.test_the_slope_is_that_of_finite_differences_and_climbs,
        ),
        (
            ".float().sum()\n",
            ".float().mean()\n",
            whole_refiner.test_the_slope_is_that_of_finite_differences_and_climbs,
        ),
        (
            "create_graph=is_taught",
            "create_graph=True",
            whole_refiner.test_the_slope_is_that_of_finite_differences_and_climbs,
        ),
        ("stack.last_norm.bias.requires_grad_(False)", "pass", slopes_reach_every_weight),
        ("bias=not is_energy", "bias=True", slopes_reach_every_weight),
        (
            "bias=not is_energy",
            "bias=False",
            whole_mask_predict.test_names_shapes_and_counts_of_parameters_are_those_written_down,
        ),
    ],
    "gaussian": [
        ("(std_q / std_p).square()", "(std_p / std_q).square()", gaussians.test_the_divergence_is_that_of_torch),
        (
            "divergence(mean_q: Tensor, std_q: Tensor, mean_p: Tensor, std_p: Tensor)",
            "divergence(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor)",
            lambda: elbo.test_the_divergence_of_a_model_is_of_its_posterior_from_its_prior("lanmt_tiny"),
        ),
        ("(mean_q - mean_p) / std_p", "(mean_q - mean_p) / std_q", gaussians.test_the_divergence_is_that_of_torch),
        (" - 1 - ratio.log()", " - ratio.log()", gaussians.test_the_divergence_is_that_of_torch),
        ("return 0.5 * (ratio", "return (ratio", gaussians.test_the_divergence_is_that_of_torch),
        (".clamp(min=LEAST_STD)", "", gaussians.test_the_standard_deviation_is_the_softplus_and_has_a_floor),
        (
            "F.softplus(raw.float())",
            "raw.float().exp()",
            gaussians.test_the_standard_deviation_is_the_softplus_and_has_a_floor,
        ),
        (
            "F.softplus(raw.float())",
            "F.softplus(raw)",
            gaussians.test_the_standard_deviation_is_the_softplus_and_has_a_floor,
        ),
        (
            "noise.uniform(keys, positions * size)",
            "noise.uniform(keys, size).repeat(1, positions)",
            gaussians.test_draws_are_standard_normal_and_hang_on_key_and_place_alone,
        ),
        (
            ".view(len(keys), positions, size)",
            ".view(len(keys), size, positions).transpose(1, 2)",
            gaussians.test_draws_are_standard_normal_and_hang_on_key_and_place_alone,
        ),
        (
            ".double() + 2.0**-25",
            ".double()",
            gaussians.test_the_least_and_the_greatest_uniform_number_give_finite_draws,
        ),
        (
            ".double() + 2.0**-25",
            " + 2.0**-25",
            gaussians.test_the_least_and_the_greatest_uniform_number_give_finite_draws,
        ),
        ("mean + std * draws(", "mean + draws(", elbo.test_a_sample_has_the_gradients_of_its_mean_and_spread),
        (
            "sample(mean, std, keys), mean)",
            "mean, sample(mean, std, keys))",
            whole_lanmt.test_candidates_are_samples_of_the_prior,
        ),
        ("self.stack(x, mask", "self.stack(x, None", continuous_in_any_batch),
        ("self.stack(x, mask, memory, is_source)", "self.stack(x, mask, memory, None)", continuous_in_any_batch),
    ],
    "lengths": [
        (
            "target_lengths - source_lengths - SHORTEST",
            "source_lengths - target_lengths - SHORTEST",
            transform.test_classes_of_lengths_are_inverted,
        ),
        ("SHORTEST_OFFSET = -50", "SHORTEST_OFFSET = -49", transform.test_classes_of_lengths_are_inverted),
        (".clamp(0, OFFSETS - 1)", ".clamp(0, OFFSETS)", transform.test_classes_of_lengths_are_inverted),
        ("classes + SHORTEST_OFFSET", "classes - SHORTEST_OFFSET", transform.test_classes_of_lengths_are_inverted),
        (".clamp(shortest, longest)", "", transform.test_classes_of_lengths_are_inverted),
        ("best[:, -1:].expand", "best[:, :1].expand", classes.test_more_candidates_than_classes_repeat_the_last),
        ("SHORTEST = 2\n", "SHORTEST = 1\n", classes.test_lengths_below_two_are_raised_to_two),
        (
            "range(-((n - 1) // 2), n // 2 + 1)",
            "range(-(n // 2), (n - 1) // 2 + 1)",
            lambda: classes.test_a_window_has_n_lengths_around_the_reference(2, {10, 11}),
        ),
        (", key=abs)", ")", lambda: classes.test_a_window_has_n_lengths_around_the_reference(3, {9, 10, 11})),
        (".clamp(SHORTEST, longest)", ".clamp(min=SHORTEST)", classes.test_a_window_stays_between_two_and_the_longest),
        (
            "device=lengths.device) < lengths[:, None]\n\n\ndef canvas",
            "device=lengths.device) <= lengths[:, None]\n\n\ndef canvas",
            classes.test_is_within_marks_the_first_positions,
        ),
        ("None if shortest == longest else is_token", "None", classes.test_a_canvas_is_masked_only_where_rows_differ),
    ],
    "noise": [
        (" & ((1 << (64 - bits)) - 1)", "", draws.test_the_mixer_is_splitmix64),
        ("_shift(x, 27)", "_shift(x, 28)", draws.test_the_mixer_is_splitmix64),
        ("0xBF58476D1CE4E5B9", "0xBF58476D1CE4E5B8", draws.test_the_mixer_is_splitmix64),
        ("mix(keys * 3 + mix(", "(keys + mix(", draws.test_folding_parts_in_another_order_gives_another_key),
        ("keys * 3 + mix(", "mix(", draws.test_training_keys_depend_on_seed_epoch_and_sentence),
        (
            "fold(fold(torch.full_like(ids, seed), epoch), ids)",
            "fold(ids, seed + epoch)",
            draws.test_training_keys_depend_on_seed_epoch_and_sentence,
        ),
        ("places) * is_token).sum(1)", "places)).sum(1)", draws.test_source_keys_do_not_see_padding),
        ("source.long() + places", "source.long()", draws.test_keys_of_a_decode_depend_on_seed_words_order_and_length),
        (
            "fold(torch.full_like(keys, seed), keys)",
            "fold(torch.full_like(keys, 0), keys)",
            draws.test_keys_of_a_decode_depend_on_seed_words_order_and_length,
        ),
        (
            ".repeat(len(keys)))",
            ".repeat_interleave(len(keys)))",
            draws.test_candidates_of_a_sentence_have_keys_of_their_own,
        ),
        ("* 2.0**-24", "* 2.0**-23", draws.test_numbers_lie_in_the_half_open_unit_interval),
        (
            "mix(keys[:, None] + places), 40",
            "mix(keys[:, None] * 0 + places), 40",
            draws.test_numbers_are_uniform_over_keys_and_over_positions,
        ),
        (".masked_fill(~is_member, 2.0)", "", masks.test_every_subset_of_a_size_is_equally_frequent),
        (
            "stable=True) < counts[:, None]",
            "stable=True) <= counts[:, None]",
            masks.test_a_target_of_one_token_is_masked,
        ),
    ],
    "transformer": [
        ("~itself & is_token[:, None, :]", "(itself | ~itself) & is_token[:, None, :]", none_sees_itself),
        ("~itself & is_token[:, None, :]", "~itself & is_token[:, :, None]", none_sees_itself),
        (
            "seen | (itself & ~seen.any(2, keepdim=True))",
            "seen",
            lambda: whole_refinement.test_a_masked_diagonal_hides_a_position_from_itself(1),
        ),
        (
            "_attend(query, memory, seen, ",
            "_attend(query, memory, None, ",
            blocks.test_self_attention_is_that_of_the_paper,
        ),
        (
            "_attend(query, memory, is_source, ",
            "_attend(query, memory, None, ",
            blocks.test_cross_attention_reads_the_projected_source_only,
        ),
        (
            "_attend(query, (key, value), seen, ",
            "_attend(query, (key, value), None, ",
            blocks.test_positional_attention_mixes_states_by_their_places,
        ),
        (
            "(*places, self.value(x))",
            "(*places[::-1], self.value(x))",
            blocks.test_positional_attention_mixes_states_by_their_places,
        ),
        (
            "self.dropout(f(self.norm(x)))",
            "self.dropout(f(x))",
            blocks.test_layer_norm_stands_after_each_block_or_before,
        ),
        (
            "self.norm(x + self.dropout(f(x)))",
            "x + self.dropout(f(self.norm(x)))",
            blocks.test_layer_norm_stands_after_each_block_or_before,
        ),
        (
            "sigmoid() * (x - new)",
            "sigmoid() * (new - x)",
            lambda: blocks.test_a_highway_weighs_what_comes_in_against_what_is_made_of_it(False),
        ),
        (
            "cross(y, memory, is_source, seen)",
            "cross(y, memory, None, seen)",
            lambda: blocks.test_padding_reaches_no_real_position(False),
        ),
        (
            "isinstance(source, Tensor) else source\n",
            "isinstance(source, Tensor) else source[::-1]\n",
            lambda: blocks.test_every_decoder_layer_may_have_an_encoder_layer_of_its_own(False),
        ),
        (
            "found.append(self.norm(x))",
            "found.append(x)",
            lambda: blocks.test_every_decoder_layer_may_have_an_encoder_layer_of_its_own(True),
        ),
        ("(first + x) * 0.5**0.5", "(first + x) * 0.5", inputs_are_added_after_every_layer),
        ("(first + x) * 0.5**0.5", "x", inputs_are_added_after_every_layer),
        ("if self.has_input_skip:", "if self.has_input_skip and i == 0:", inputs_are_added_after_every_layer),
        ("if self.has_input_skip:", "if True:", inputs_are_added_after_every_layer),
        (
            "first = x\n        for i, layer in enumerate(self.layers):\n",
            "for i, layer in enumerate(self.layers):\n            first = x\n",
            inputs_are_added_after_every_layer,
        ),
        ("return self.norm(x)\n", "return x\n", blocks.test_layer_norm_stands_after_each_block_or_before),
        (
            "self.scale * self.tokens(tokens)",
            "self.tokens(tokens)",
            whole_refinement.test_the_first_pass_reads_the_copied_source,
        ),
        (" + self.places(tokens.size(1))", "", whole_refinement.test_the_first_pass_reads_the_copied_source),
        (
            "table.embedding_dim**0.5 if",
            "table.embedding_dim if",
            whole_refinement.test_the_first_pass_reads_the_copied_source,
        ),
        (
            "else weight[: self.size], bias)",
            "else weight[: self.size])",
            whole_lanmt.test_every_part_has_a_gradient,
        ),
        ("else weight[: self.size]", "else weight", whole_mask_predict.test_no_output_layer_has_the_mask),
        ("max(1, dim // 2 - 1)", "max(1, dim // 2)", blocks.test_sinusoids_are_those_of_the_formula_and_no_parameter),
        ("std=0.02)", "std=0.05)", blocks.test_initialisation_is_that_of_bert),
        (
            "None if bool(is_token.all())",
            "None if bool(is_token.any())",
            blocks.test_a_batch_without_padding_needs_no_mask,
        ),
    ],
    "cache": [
        (".tril() & is_token", " & is_token", caches.test_a_new_word_sees_what_is_live_and_the_new_ones_up_to_itself),
        (
            "is_token[:, None, :] | itself]",
            "is_token[:, None, :]]",
            caches.test_a_new_word_sees_what_is_live_and_the_new_ones_up_to_itself,
        ),
        (
            "before = self.is_live[:, None, :]",
            "before = torch.ones_like(self.is_live)[:, None, :]",
            rows_keep_what_they_keep,
        ),
        ("torch.cat([past[0], key], 2)", "torch.cat([key, past[0]], 2)", rows_keep_what_they_keep),
        ("[self.is_live, is_token], 1)", "[self.is_live, is_token | True], 1)", caches.test_padding_cannot_be_kept),
        ("last & is_kept", "is_kept", caches.test_padding_cannot_be_kept),
        ("last & is_kept", "last", caches.test_only_the_last_columns_are_judged),
        (
            "order = (~self.is_live)",
            "order = self.is_live",
            caches.test_compaction_keeps_a_rows_live_columns_in_their_order,
        ),
        (
            "stable=True)[:, :width]",
            "stable=True).flip(1)[:, -width:]",
            caches.test_compaction_keeps_a_rows_live_columns_in_their_order,
        ),
        ("int(counts.max()) if", "int(counts.min()) if", compaction_changes_nothing),
        ("device=order.device) < counts", "device=order.device) <= counts", compaction_changes_nothing),
    ],
    "shortlist": [
        (
            " | (filled == symbols.bos)",
            "",
            lists.test_special_symbols_are_never_allowed_but_the_end_and_the_unknown_word,
        ),
        (
            " - {symbols.pad, symbols.bos}",
            "",
            lists.test_special_symbols_are_never_allowed_but_the_end_and_the_unknown_word,
        ),
        (
            "symbols.eos, symbols.unk}",
            "symbols.eos}",
            lists.test_each_sentence_is_allowed_its_own_words_and_those_of_all,
        ),
        (
            "is_allowed[:, self.always] = True",
            "pass",
            lists.test_each_sentence_is_allowed_its_own_words_and_those_of_all,
        ),
        (
            "self.rows[source]",
            "self.rows[source[:1]]",
            lists.test_each_sentence_is_allowed_its_own_words_and_those_of_all,
        ),
        (
            "is_allowed[:, words], (0, missing))",
            "is_allowed[:, words], (0, missing), value=True)",
            lists.test_each_sentence_is_allowed_its_own_words_and_those_of_all,
        ),
        ("is_allowed.any(0)", "is_allowed.all(0)", lists.test_each_sentence_is_allowed_its_own_words_and_those_of_all),
    ],
    "warm_start": [
        ("attention.q_proj, attention.k_proj, attention.v_proj", "*3 * [attention.q_proj]", blocks_are_the_teachers),
        ("key_value, attention.k_proj", "key_value, attention.q_proj", blocks_are_the_teachers),
        ("attention = theirs.encoder_attn", "attention = theirs.self_attn", blocks_are_the_teachers),
        ("theirs.encoder_attn_layer_norm", "theirs.self_attn_layer_norm", blocks_are_the_teachers),
        ("scale(linear, 0.5**depth)", "pass", highways_pass_on_the_teachers_states),
        ("scale(own.around_feed.gate.outer, 0.0)", "pass", highways_pass_on_the_teachers_states),
        ("scale(own.positional_attention.output, 0.0)", "pass", highways_pass_on_the_teachers_states),
        ("i * len(layers) // len(ours)", "i", every_second_layer_is_taken),
        ("theirs.float().mean(0)", "0.0", starts.test_the_row_of_the_mask_begins_as_the_mean_of_all_words),
        ('"output": decoder.output_projection', '"output": decoder.embed_tokens', tables_by_their_use),
        ("for use, own in tables}", "for use, own in tables[::-1]}", a_shared_table_is_the_targets),
        ('"decoder" if has_source(stack) else "encoder"', '"decoder"', the_decoder_alone),
        ('if "attention heads" not in unlike:', "if True:", heads_do_not_fit),
        ("+= theirs.numel()", "+= own.numel()", starts.test_the_line_says_how_much_is_the_teachers),
        ("arange(first, first + width)", "arange(width)", blocks.test_sinusoids_may_begin_at_a_later_position),
    ],
    "latent_transformer": [
        (
            "digits[..., part, :, None] + logits[..., None, :]",
            "digits[..., part, None, :] + logits[..., :, None]",
            digits_of_codes,
        ),
        ("lengths + compression - 1)", "lengths + compression)", canvases),
        ("hidden_beyond(F.relu(y), is_there)", "F.relu(y)", codes_in_any_batch),
        ("x, seen = F.pad(x, (0, 0, 1, 0))[:, :-1], causal", "x, seen = x, causal", the_future_is_hidden),
        (
            "self.dropout(F.pad(embedded, (0, 0, 1, 0))[:, :-1] + weight)",
            "self.dropout(embedded + weight)",
            codes_before,
        ),
        ("device=device).tril()[None]", "device=device)[None]", codes_before),
        ("places + draw, torch.inf)", "places - 9 * draw, torch.inf)", words_shuffled),
    ],
    "autoregressive": [
        ("/ temperature).softmax(1)", ").softmax(1)", searches.test_draws_follow_the_probabilities),
        (
            "torch.where(keys == 0, last, chosen",
            "torch.where(keys < 0, last, chosen",
            searches.test_draws_follow_the_probabilities,
        ),
        ("score.masked_fill(~is_open, 0.0)", "score", searches.test_the_most_probable_code_at_each_step),
        ("last.masked_fill(~is_open, 0)", "last", searches.test_the_most_probable_code_at_each_step),
        ("torch.where(is_open, best, scores)", "best", searches.test_a_wide_beam_is_exhaustive),
        ("scores[:, 0] = 0.0", "scores[:] = 0.0", searches.test_a_beam_keeps_the_best_beginnings),
        (
            "(first * n + parent).flatten()",
            "(first * n + parent * 0).flatten()",
            searches.test_a_beam_keeps_the_best_beginnings,
        ),
    ],
    "quantizers": [
        ("h + (vectors.to(h.dtype) - h).detach()", "h + vectors.to(h.dtype) - h", gradients_pass),
        ("self.beta * mean_square", "self.beta * mean_square / 2", gradients_pass),
        ("weights = weights * is_sound[None, :, None]", "weights = weights * 1", no_trace_of_padding),
        ("if self.seen:\n            self.seen.pop()", "pass", statistics_of_training),
        ("torch.ones(books, self.each)", "1e-4 * torch.ones(books, self.each)", codes_stay_in_use),
        (
            "is_moved = new_counts > self.EPSILON",
            "is_moved = new_counts > -1",
            codes.test_an_update_without_memory_is_the_means_of_what_was_assigned,
        ),
        (
            "// self.places(book.device)[:, None] % self.each",
            "// self.places(book.device).flip(0)[:, None] % self.each",
            codes.test_parts_are_the_nearest_of_a_product_of_codebooks,
        ),
        ("(1.2 * x.sigmoid() - 0.1)", "x.sigmoid()", codes.test_the_sigmoid_saturates),
        (
            "return 0.5 * schedules.rising(progress.update, progress.until(self.ramp))",
            "return 0.1",
            codes.test_hashing_reads_numbers_and_bits,
        ),
        ("return 1.2 - schedules", "return 1.0 - schedules", codes.test_gumbel_in_training_and_out_of_it),
        (
            "-self.distances(parted)[0].view",
            "-self.distances(parted)[0].sqrt().view",
            codes.test_soft_codes_are_drawn_by_distance,
        ),
        (
            "rest = parted if not reached else parted - reached[-1]",
            "rest = parted",  # as in the released code
            codes.test_codebooks_one_after_the_other_are_for_what_is_left,
        ),
        ("(self.residuals, -1)).sum(0)", "(self.residuals, -1))[0]", residuals_are_embedded),
        (
            "self.table.detach().float()",
            "self.table.float()",
            codes.test_a_learnt_codebook_has_a_loss_of_its_own,
        ),
        (
            "square.sum((0, 2)) / (self.parts * square.size(2))",
            "square.sum((0, 2))",
            codes.test_a_learnt_codebook_has_a_loss_of_its_own,
        ),
        (
            "self.SURENESS * best",
            "0.0 * best",
            codes.test_terms_for_usage_of_codes,
        ),
        ("/ count - means.square().sum()", "/ count", codes.test_terms_for_usage_of_codes),
        ("torch.where(counts % 2 == 0, 0.5, 0.0)", "torch.where(counts % 2 == 0, 0.0, 0.0)", all_of_the_grid),
        ("[math.prod(levels[:i]) for", "[math.prod(levels[: i + 1]) for", all_of_the_grid),
        ("end * self.updates if 0 < end < 1 else end", "end", codes.test_schedules_have_their_closed_forms),
    ],
    "deduplication": [
        ("& (after != end) &", "&", together.test_the_end_may_be_said_at_several_places),
        (
            "total = reached + lost[:, place]",
            "total = reached",
            together.test_a_penalty_goes_from_nothing_to_no_repeats_at_all,
        ),
        (
            "lost = (scores[..., :1].double() - scores)",
            "lost = (scores.double() - scores[..., :1])",
            together.test_a_penalty_goes_from_nothing_to_no_repeats_at_all,
        ),
        (
            "origin.gather(1, path[-1])",
            "origin.gather(1, path[0])",
            together.test_a_penalty_goes_from_nothing_to_no_repeats_at_all,
        ),
        (
            "x.scatter_(-1, place[..., None], -torch.inf)",
            "pass",
            together.test_a_penalty_goes_from_nothing_to_no_repeats_at_all,
        ),
    ],
    "fertility_nat": [
        ("ends, targets, right=True)", "ends, targets)", words_are_copied),
        ("right=True), lengths[:, None] - 1)", "right=True), lengths[:, None])", copies_of_a_batch),
        ("(MOST * lengths)", "(MOST * lengths.clamp(min=int(lengths.max())))", sums_that_can_be),
        ("keepdim=True) == 0) & words, one", "keepdim=True) < 0) & words, one", sums_that_can_be),
        ("masked_fill(~words, torch.inf).argmin(1)", "masked_fill(~words, -torch.inf).argmax(1)", sums_that_can_be),
        ("most - (kept.cumsum(1) - kept)", "most - kept.cumsum(1)", sums_that_can_be),
        ("== lengths[:, None] - 1).long()", "== lengths[:, None]).long()", what_is_certain),
        (".sum(-1).round().long()", ".sum(-1).long()", the_average),
        (
            "sampled(log_probs / temperature",
            "sampled(log_probs",
            lambda: fertilities.test_draws_follow_the_probabilities(0.5),
        ),
        ("n // (i + 1)", "n // (i + 2)", thirty_vectors_of_three_words),
        ("scores[:, 0] > -torch.inf", "scores[:, 0] > torch.inf", thirty_vectors_of_three_words),
        (
            "range(min(size, n))",
            "range(min(size, n) - 1)",
            lambda: fertilities.test_the_best_sums_of_two_lists_are_among_the_pairs_that_are_tried(144),
        ),
        ("classes - 1 - chosen)", "chosen)", vectors_of_a_length),
        ("gain = log_probs - teacher if", "gain = log_probs - 0 * teacher if", fertilities_divergence),
        ("(loss - baseline).detach()", "(baseline - loss).detach()", the_estimate),
        ("(rank < left)", "(rank <= left)", lambda: fertilities.test_expected_fertilities_are_scaled_to_any_length(7)),
    ],
    "source_copy": [
        (
            "chosen + self.embedding.places(",
            "chosen + 0 * self.embedding.places(",
            whole_fertilities.test_the_decoder_reads_source_embeddings_with_both_positions,
        ),
        (
            "if self.is_blind:",
            "if False:",
            lambda: whole_fertilities.test_no_position_sees_itself_but_one_that_is_alone(6),
        ),
    ],
    "em": [
        ("value += self.alpha * candidate", "value += candidate", em.test_alpha_weighs_the_teacher),
        (
            "return values.index(max(values))",
            "return 0",
            em.test_what_is_chosen_is_an_answer_and_no_worse_than_the_first,
        ),
        (
            "return values.index(max(values))",
            "return len(values) - 1 - values[::-1].index(max(values))",
            em.test_what_is_chosen_is_an_answer_and_no_worse_than_the_first,
        ),
        (
            "return value / candidate.tokens if",
            "return value if",
            em.test_compared_by_the_token_short_answers_lose_their_advantage,
        ),
        (
            "* self.tokens**lenpen",
            "* self.tokens",
            lambda: em.test_the_teacher_s_log_probability_is_that_before_the_length_penalty(0.8),
        ),
        ("if not candidate.is_usable or", "if", lambda: em.test_what_cannot_be_a_target_is_never_chosen("")),
        ("            yield target\n", "", em.test_every_line_has_a_target_and_one_without_an_answer_keeps_its_own),
        (
            "self.impossible += 1",
            "self.tokens += score.tokens",
            em.test_pairs_that_cannot_be_said_are_counted_and_left_out,
        ),
        ("self.nats / max", "-self.nats / max", em.test_multi_modality_is_nats_over_tokens),
    ],
    "schedules": [
        ("0.01 + 0.99 * min", "0.01 + min", codes.test_schedules_have_their_closed_forms),
        (
            "0.01 ** max(0.0, 1 - update / end)",
            "0.1 ** max(0.0, 1 - update / end)",
            codes.test_schedules_have_their_closed_forms,
        ),
    ],
}
"""By method, then what methods share: the right text, a wrong one, and a check that then fails."""
ALL = [mutation for of_method in MUTATIONS.values() for mutation in of_method]
IDS = [f"{method}: {right}->{wrong}".replace("\n", " ") for method, of in MUTATIONS.items() for right, wrong, _ in of]


def run_source(module: types.ModuleType, text: str) -> types.ModuleType:
    """The module that the text makes, with the imports of the true one."""
    spec = importlib.util.spec_from_loader(module.__name__, loader=None)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    made.__package__ = module.__package__
    exec(compile(text, f"mutated {module.__name__}", "exec"), vars(made))
    return made


def functions(module: types.ModuleType) -> dict[str, types.FunctionType]:
    """All that the text of a module defines, the methods of its classes too, by qualified name."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    members = [member for value in own for member in (vars(value).values() if isinstance(value, type) else [value])]
    plain = [getattr(member, "fget", None) or getattr(member, "__func__", member) for member in members]
    return {value.__qualname__: value for value in plain if isinstance(value, types.FunctionType)}


def put_in_place(module: types.ModuleType, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The true functions and methods get the code that the text makes, so that whoever imported one by name, derives
    from its class or holds an instance has the mistake too; constants are replaced in the module."""
    made = run_source(module, text)
    code = {name: value.__code__ for name, value in functions(made).items()}
    for name, value in functions(module).items():
        monkeypatch.setattr(value, "__code__", code[name])
    for name, value in vars(made).items():
        if name.isupper():
            monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize(("right", "wrong", "check"), ALL, ids=IDS)
def test_a_mistake_is_found(right: str, wrong: str, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
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
    for value in (prediction.most_probable, transformer.Stack.forward, cache.KVCache.empty, lanmt.Decoder.forward):
        assert value.__code__.co_filename == f"mutated {value.__module__}"
    for check in {check for _, _, check in ALL}:
        check()
