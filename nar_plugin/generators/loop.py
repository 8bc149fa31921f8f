"""The refinement loop: the one driver of every method that decodes in passes over whole states.

It owns stopping, the removal of finished sentences, history, candidate groups and counters; everything else is behind
``methods.contract.DecodingModel``. The states may hold tokens, latents, both, or a prefix that a method verifies.
"""

from dataclasses import dataclass, field
from typing import Any, Mapping, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..methods import noise
from ..methods.contract import Ask, DecodingModel, Encoded, Finished, Starts, UsageError
from ..methods.symbols import Symbols, collapsed
from . import oracle
from .candidates import Teacher, best, chunks, normalised
from .counters import Counters
from .hypotheses import Hypothesis, Step, empty, hypothesis
from .stopping import Watch, either


@dataclass(frozen=True)
class DecodeOptions:
    """What the command line says of a decode. ``iterations``: refinements after the first pass; ``of_model``: the
    task's flags that only the model understands."""

    iterations: int = 0
    candidates: int = 1
    nbest: int = 1
    norm: str = "mean"
    lenpen: float = 1.0
    stop_rule: str = "none"
    stop_window: int = 1
    stop_distance: float = 0.0
    max_candidate_tokens: int | None = None
    keep_history: bool = False
    gold_length: bool = False
    collapse_repeats: bool = False
    seed: int = 1
    of_model: Mapping[str, Any] = field(default_factory=dict)


class Decoded(NamedTuple):
    """Finished rows: (R, T) padded ids, (R, T) log-probabilities and (R,) extra ones in nats, (R,) refinements made, a
    history a row."""

    tokens: Tensor
    scores: Tensor
    extra: Tensor
    steps: Tensor
    history: list[list[Step]]


class Harvest:
    """Collects rows as they finish, in any order and of any width, and puts them back in their order."""

    def __init__(self, pad: int) -> None:
        self.pad = pad
        self.parts: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []

    def put(self, rows: Tensor, done: Finished, steps: Tensor | int) -> None:
        extra = torch.zeros(len(rows), device=rows.device) if done.extra is None else done.extra
        steps = torch.as_tensor(steps, device=rows.device).expand(len(rows))
        self.parts.append((rows, done.tokens, done.scores, extra, steps))

    def gather(self, history: list[list[Step]]) -> Decoded:
        """All rows in their order. What was put at once is in order already."""
        if len(self.parts) == 1:
            return Decoded(*self.parts[0][1:], history)
        rows, tokens, scores, extra, steps = zip(*self.parts, strict=True)
        back, width = torch.cat(rows).argsort(), max(t.size(1) for t in tokens)
        return Decoded(
            torch.cat([F.pad(t, (0, width - t.size(1)), value=self.pad) for t in tokens])[back],
            torch.cat([F.pad(s, (0, width - s.size(1))) for s in scores])[back],
            torch.cat(extra)[back],
            torch.cat(steps)[back],
            history,
        )


class RefinementGenerator:
    """fairseq's generator interface (``generate``) around the loop.

    ``teacher`` rescores the candidates where given. ``counters`` accumulate over all calls.
    """

    def __init__(
        self, model: DecodingModel, symbols: Symbols, options: DecodeOptions, teacher: Teacher | None = None
    ) -> None:
        self.model, self.symbols, self.options, self.teacher = model, symbols, options, teacher
        self.eos = symbols.eos
        self.counters = Counters()

    @torch.no_grad()
    def generate(
        self,
        models: list[Any],
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> list[list[Hypothesis]]:
        """The n best hypotheses of every sentence of the batch, best first, in the batch's order.

        A source of no token but ``</s>`` gets the empty hypothesis. Each hypothesis holds ``tokens`` (T,) as decoded,
        ``positional_scores`` (T,) and ``score`` in nats, ``steps`` (refinements made) and, if asked for, ``history``.
        """
        if prefix_tokens is not None or constraints is not None:
            raise UsageError("--prefix-size and --constraints need an autoregressive --arch")
        net_input, n = sample["net_input"], self.options.candidates
        with self.counters.running(self.model, self.teacher):
            encoded = self.model.encode(net_input["src_tokens"], net_input["src_lengths"])
            lengths, options = self.gold_lengths(sample), self.options.of_model
            ask = Ask(n=n, seeds=lambda: self.seeds(encoded), lengths=lengths, options=options)
            decoded = self.decode_all(encoded, self.model.propose(encoded, ask), net_input["src_tokens"])
            if self.options.stop_rule == "oracle":
                decoded = self.at_best_stops(decoded, self.references(sample, "--stop-rule oracle"))
            score = self.score(decoded, net_input)
            rows = best(score, n, self.options.nbest)
            if self.options.collapse_repeats:  # after the choice: to say a word twice shall not pay
                tokens, scores = collapsed(decoded.tokens, decoded.scores, self.symbols)
                decoded = decoded._replace(tokens=tokens, scores=scores)
            hypotheses = self.hypotheses(decoded, score, rows, self.is_empty(encoded))
        self.counters.sentences += len(hypotheses)
        self.counters.tokens += sum(len(group[0]["tokens"]) for group in hypotheses)
        return hypotheses

    def seeds(self, encoded: Encoded) -> Tensor:
        """(B,) noise keys from ``--seed`` and the source, nothing else: the same in any batch and program."""
        if encoded.source is None:
            raise NotImplementedError("sources that are not tokens need keys of their own")
        return noise.source_keys(self.options.seed, encoded.source, encoded.source != self.symbols.pad)

    def gold_lengths(self, sample: dict[str, Any]) -> Tensor | None:
        if not self.options.gold_length:
            return None
        return (self.references(sample, "--gold-target-len") != self.symbols.pad).sum(1)

    def references(self, sample: dict[str, Any], flag: str) -> Tensor:
        if sample.get("target") is None:
            raise UsageError(f"{flag} needs references")
        return sample["target"]

    def at_best_stops(self, decoded: Decoded, references: Tensor) -> Decoded:
        """Of all outputs that were made, those at which the oracle would have stopped."""
        pad, device = self.symbols.pad, decoded.tokens.device
        outputs = [[tokens for tokens, _ in row] for row in decoded.history]
        references = references.repeat_interleave(self.options.candidates, 0)
        ignored = pad, self.symbols.bos, self.eos
        stops = oracle.best_stops(outputs, references, self.options.stop_window, ignored)
        chosen = [row[stop] for row, stop in zip(decoded.history, stops, strict=True)]
        return Decoded(
            pad_sequence([tokens for tokens, _ in chosen], batch_first=True, padding_value=pad).to(device),
            pad_sequence([scores for _, scores in chosen], batch_first=True).to(device),
            decoded.extra,
            torch.tensor(stops, device=device),
            [row[: stop + 1] if self.options.keep_history else [] for row, stop in zip(decoded.history, stops)],
        )

    def is_empty(self, encoded: Encoded) -> list[bool]:
        """Sentences with nothing to translate."""
        assert encoded.source is not None
        return ((encoded.source == self.symbols.pad) | (encoded.source == self.eos)).all(1).tolist()

    def decode_all(self, encoded: Encoded, starts: Starts, source: Tensor) -> Decoded:
        """Decode ``n`` candidates of every sentence, cut by ``--max-candidate-tokens``; the cut changes no result."""
        n, limit = self.options.candidates, self.options.max_candidate_tokens
        rows = torch.arange(len(source) * n, device=source.device)
        if limit is None:
            return self.decode(encoded if n == 1 else encoded.select(rows // n), starts, rows)
        width = starts.longest or source.size(1) if starts.lengths is None else int(starts.lengths.max())
        harvest, history = Harvest(self.symbols.pad), []
        for cut in chunks(rows, width, limit):
            part = self.decode(encoded.select(cut // n), starts.select(cut), rows[: len(cut)])
            harvest.put(cut, Finished(part.tokens, part.scores, part.extra), part.steps)
            history += part.history
        return harvest.gather(history)

    def decode(self, encoded: Encoded, starts: Starts, alive: Tensor) -> Decoded:
        """The loop itself, over rows ``alive`` = 0 … R − 1.

        Finished rows leave the batch at once. With a fixed number of passes the loop never waits for the device; a
        model that predicts lengths anew does, once a pass.
        """
        options, steps = self.options, self.model.max_steps(self.options.iterations)
        watch = Watch(options.stop_rule, options.stop_window, options.stop_distance, self.symbols.pad)
        harvest = Harvest(self.symbols.pad)
        history: list[list[Step]] = [[] for _ in range(len(alive))]
        state = self.model.start(encoded, starts)
        step = 0
        while True:
            if self.options.keep_history or self.options.stop_rule == "oracle":
                seen = self.model.finish(state)
                for row, tokens, scores in zip(alive.tolist(), seen.tokens, seen.scores, strict=True):
                    history[row].append((tokens.clone().cpu(), scores.clone().float().cpu()))
            verdict = either(watch.see(state.tokens), state.done)
            if verdict is not None and bool(verdict.any()):
                ended, going = verdict.nonzero()[:, 0], (~verdict).nonzero()[:, 0]
                harvest.put(alive[ended], self.model.finish(state.select(ended)), step)
                alive, state = alive[going], state.select(going)
                watch.keep(going)
            if step == steps or not len(alive):
                break
            step += 1
            state = self.model.refine(state, step, steps)
        if len(alive):
            harvest.put(alive, self.model.finish(state), step)
        return harvest.gather(history)

    def score(self, decoded: Decoded, net_input: dict[str, Tensor]) -> Tensor:
        """(R,) candidate scores, by the teacher where there is one, else by the model's own log-probabilities."""
        if self.teacher is None:
            total = decoded.scores.float().sum(1) + decoded.extra
            lengths = (decoded.tokens != self.symbols.pad).sum(1)
        else:
            source, source_lengths = net_input["src_tokens"], net_input["src_lengths"]
            total, lengths = self.teacher.score(source, source_lengths, decoded.tokens, self.options.candidates)
        return normalised(total, lengths, self.options.norm, self.options.lenpen)

    def hypotheses(self, decoded: Decoded, score: Tensor, rows: Tensor, is_empty: list[bool]) -> list[list[Hypothesis]]:
        """(B, nbest) chosen rows as the host wants them: one copy to the host, then plain slices."""
        pad, tokens, scores = self.symbols.pad, decoded.tokens.cpu(), decoded.scores.float().cpu()
        score, steps = score.cpu(), decoded.steps.tolist()

        def of(row: int) -> Hypothesis:
            return hypothesis(tokens[row], scores[row], score[row], pad, steps[row], decoded.history[row])

        groups = zip(rows.tolist(), is_empty, strict=True)
        return [[empty(self.eos) if nothing else of(row) for row in group] for group, nothing in groups]
