"""Lets fairseq's own ``IterativeRefinementGenerator`` drive the weights of our mask-predict model.

Everything between the weights and the host's loop is written here a second time, plainly: one row at a time, the whole
vocabulary projected at every position. Only the model's encoder, decoder pass and projection are shared.
"""

from typing import Any, Optional

import torch
from fairseq.iterative_refinement_generator import DecoderOut, IterativeRefinementGenerator
from torch import Tensor

from nar_plugin.architectures.mask_predict import MaskPredictEncoded, MaskPredictModel
from nar_plugin.methods.unmasking import GRID

SHORTEST = 2


class _Encoder:
    @staticmethod
    def reorder_encoder_out(encoded: MaskPredictEncoded, order: Tensor) -> MaskPredictEncoded:
        return encoded.select(order.reshape(-1))  # the host squeezes a single row to a scalar


class FairseqMaskPredict(torch.nn.Module):
    """The interface of ``fairseq.models.nat.FairseqNATModel`` as far as the host's generator asks for it."""

    allow_length_beam = True
    allow_ensemble = False

    def __init__(self, model: MaskPredictModel) -> None:
        super().__init__()
        self.model, self.encoder = model, _Encoder()
        self.log_probs_of_lengths: Optional[Tensor] = None

    def forward_encoder(self, inputs: list[Tensor]) -> MaskPredictEncoded:
        return self.model.encode(dict(zip(("src_tokens", "src_lengths"), inputs, strict=True)))

    def canvases(self, lengths: list[int]) -> DecoderOut:
        symbols, width = self.model.symbols, max(lengths)
        rows = [[symbols.mask] * n + [symbols.pad] * (width - n) for n in lengths]
        tokens = torch.tensor(rows)
        return DecoderOut(tokens, torch.zeros(tokens.shape), None, 0, 0, None)

    def best_lengths(self, log_probs: Tensor, n: int) -> list[int]:
        return [
            max(SHORTEST, length)
            for row in log_probs.tolist()
            for length in sorted(range(len(row)), key=lambda k, row=row: -row[k])[:n]
        ]

    def initialize_output_tokens(self, encoded: MaskPredictEncoded, source: Tensor) -> DecoderOut:
        self.log_probs_of_lengths = encoded.length_log_probs
        return self.canvases(self.best_lengths(encoded.length_log_probs, 1))

    def regenerate_length_beam(self, decoder_out: DecoderOut, beam_size: int) -> DecoderOut:
        assert self.log_probs_of_lengths is not None
        return self.canvases(self.best_lengths(self.log_probs_of_lengths, beam_size))

    def least_confident(self, scores: list[float], count: int) -> list[int]:
        """Lowest first, on the grid on which the package compares confidences, ties from the left."""
        return sorted(range(len(scores)), key=lambda i: (round(scores[i] / GRID), i))[:count]

    def forward_decoder(self, before: DecoderOut, encoded: MaskPredictEncoded, **ignored: Any) -> DecoderOut:
        """Pass ``step`` + 1 of ``max_step``: mask, predict, and take over what was predicted at the masks."""
        symbols, tokens, scores = self.model.symbols, before.output_tokens.clone(), before.output_scores.clone()
        is_token = tokens != symbols.pad
        for row, n in enumerate(is_token.sum(1).tolist() if before.step else []):
            count = max(1, n * (before.max_step - before.step) // before.max_step)
            tokens[row, self.least_confident(scores[row, :n].tolist(), count)] = symbols.mask
        log_probs = self.model.project(self.model.decode(encoded, tokens, is_token)).log_softmax(-1)
        log_probs[..., [symbols.pad, symbols.bos]] = -torch.inf
        predicted_scores, predicted = log_probs.max(-1)
        masked = tokens == symbols.mask
        return before._replace(
            output_tokens=torch.where(masked, predicted, tokens),
            output_scores=torch.where(masked, predicted_scores, scores),
        )


def host_decode(
    model: MaskPredictModel, dictionary: Any, sample: dict[str, Any], passes: int, candidates: int
) -> list[list[dict[str, Any]]]:
    """What fairseq's loop makes of our weights: ``max_iter`` counts refinements, so it is one less than the passes."""
    generator = IterativeRefinementGenerator(
        dictionary, max_iter=passes - 1, adaptive=False, beam_size=candidates, models=None
    )
    return generator.generate([FairseqMaskPredict(model)], sample)
