"""The refinement loop: the one driver of every method that decodes in passes over whole states.

It owns stopping, the removal of finished sentences, history, candidate groups and counters; everything else is behind
``methods.contract.DecodingModel``. The states may hold tokens, latents, both, or a prefix that a method verifies.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..methods import noise
from ..methods.contract import AnyModel, Encoded, Finished, Proposals, Request, State, UsageError
from ..methods.options import Candidates, Deduplication, GoldLength, History, Options, Stopping, Verified
from ..methods.shortlist import Lexicon
from ..methods.symbols import Symbols, collapsed
from . import oracle
from .candidates import Judge, Teacher, best, chunks, normalised
from .counters import Counters
from .hypotheses import Hypothesis, Step, empty, hypothesis
from .stopping import StopRule, either

LIVE_SHARE = 0.75
"""A batch with fewer rows than this share still to be refined is made smaller: selecting rows copies all that they own,
and refining finished rows along costs less than that as long as they are few."""


class Decoded(NamedTuple):
    """Hypotheses of finished rows, in the order of the rows: (N, T) padded ids, (N, T) log-probabilities and (N,) extra
    ones in nats, (N,) refinement steps made, (N,) the row that each is of; a history a row."""

    tokens: Tensor
    scores: Tensor
    extra: Tensor
    steps: Tensor
    row: Tensor
    history: list[list[Step]]


class ResultBuffer:
    """Collects rows as they finish, in any order and of any width, and puts them back in their order."""

    def __init__(self, pad: int) -> None:
        self.pad = pad
        self.parts: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []

    def put(self, rows: Tensor, done: Finished, steps: Tensor | int) -> None:
        """``rows``: (R,) which rows they are; ``steps``: (N,) or one number."""
        rows = rows if done.owner is None else rows[done.owner]
        extra = torch.zeros(len(rows), device=rows.device) if done.extra is None else done.extra
        steps = torch.as_tensor(steps, device=rows.device).expand(len(rows))
        self.parts.append((rows, done.tokens, done.scores, extra, steps))

    def gather(self, history: list[list[Step]]) -> Decoded:
        """All rows in their order. What was put at once is in order already."""
        if len(self.parts) == 1:
            row, tokens, scores, extra, steps = self.parts[0]
            return Decoded(tokens, scores, extra, steps, row, history)
        parts = zip(*self.parts, strict=True)
        rows, all_tokens, all_scores, extras, all_steps = (list(part) for part in parts)
        row, width = torch.cat(rows), max(t.size(1) for t in all_tokens)
        order = row.argsort(stable=True)
        return Decoded(
            torch.cat([F.pad(t, (0, width - t.size(1)), value=self.pad) for t in all_tokens])[order],
            torch.cat([F.pad(s, (0, width - s.size(1))) for s in all_scores])[order],
            torch.cat(extras)[order],
            torch.cat(all_steps)[order],
            row[order],
            history,
        )


class RefinementGenerator:
    """fairseq's generator interface (``generate``) around the loop.

    ``options``: an instance of the model's ``decode_options``. ``teacher`` rescores the candidates where given,
    ``judge`` adds to what the model says of them, and ``lexicon`` says which words the model may give. ``counters``
    accumulate over all calls.
    """

    def __init__(
        self,
        model: AnyModel,
        symbols: Symbols,
        options: Options,
        seed: int = 1,
        teacher: Teacher | None = None,
        lexicon: Lexicon | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.model, self.symbols, self.options, self.seed, self.teacher = model, symbols, options, seed, teacher
        self.lexicon, self.judge = lexicon, judge
        self.candidates, self.stopping = options.part(Candidates), options.part(Stopping)
        self.is_oracle = self.stopping.rule == "oracle"
        self.keeps_history = options.part(History).keep_history
        self.eos = symbols.eos
        self.counters = Counters(is_drafted=isinstance(options, Verified))

    @torch.no_grad()
    def generate(
        self,
        models: list[Any],
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> list[list[Hypothesis]]:
        """The n best hypotheses of every sentence of the batch, best first, in the batch's order.

        A source without content gets the empty hypothesis. Each hypothesis holds ``tokens`` (T,) as decoded,
        ``positional_scores`` (T,) and ``score`` in nats, ``steps`` (refinement steps made) and, if asked for,
        ``history``.
        """
        if prefix_tokens is not None or constraints is not None:
            raise UsageError("--prefix-size and --constraints need an autoregressive --arch")
        net_input = sample["net_input"]
        with self.counters.running(self.model, self.teacher):
            encoded = self.encoded(net_input)
            request = Request(
                options=self.options,
                keys=lambda: noise.decoding_keys(self.seed, encoded.keys),
                lengths=self.gold_lengths(sample),
            )
            decoded = self.decode_all(encoded, self.model.propose(encoded, request))
            if self.is_oracle:
                decoded = self.at_best_stops(decoded, self.references(sample, "--stop-rule oracle"))
            owner = decoded.row if self.options.candidates == 1 else decoded.row // self.options.candidates
            score = self.score(decoded, owner, net_input)
            chosen = self.chosen(score, owner, len(encoded.keys))
            if self.candidates.collapse_repeats:  # after the choice: to write a word twice shall not pay
                tokens, scores = collapsed(decoded.tokens, decoded.scores, self.symbols)
                decoded = decoded._replace(tokens=tokens, scores=scores)
            hypotheses = self.hypotheses(decoded, score, chosen, encoded.is_empty.tolist())
        self.counters.sentences += len(hypotheses)
        self.counters.tokens += sum(len(group[0]["tokens"]) for group in hypotheses)
        return hypotheses

    def encoded(self, net_input: dict[str, Tensor]) -> Encoded:
        """The sources, the words that each may get, and what it costs to say one twice."""
        encoded: Encoded = self.model.encode(net_input)
        shortlist = None if self.lexicon is None else self.lexicon.shortlist(net_input["src_tokens"])
        return replace(encoded, shortlist=shortlist, penalty=self.options.part(Deduplication).penalty)

    def gold_lengths(self, sample: dict[str, Any]) -> Tensor | None:
        if not self.options.part(GoldLength).gold_target_len:
            return None
        return (self.references(sample, "--gold-target-len") != self.symbols.pad).sum(1)

    def references(self, sample: dict[str, Any], flag: str) -> Tensor:
        target: Tensor | None = sample.get("target")
        if target is None:
            raise UsageError(f"{flag} needs references")
        return target

    def at_best_stops(self, decoded: Decoded, references: Tensor) -> Decoded:
        """Of all outputs that were made, those at which the oracle would have stopped."""
        pad, device = self.symbols.pad, decoded.tokens.device
        outputs = [[step.tokens for step in row] for row in decoded.history]
        references = references.repeat_interleave(self.options.candidates, 0)
        ignored = pad, self.symbols.bos, self.eos
        stops = oracle.best_stops(outputs, references, self.stopping.stop_window, ignored)
        chosen = [row[stop] for row, stop in zip(decoded.history, stops, strict=True)]
        first = first_of_each(decoded.row)
        return Decoded(
            pad_sequence([step.tokens for step in chosen], batch_first=True, padding_value=pad).to(device),
            pad_sequence([step.scores for step in chosen], batch_first=True).to(device),
            torch.stack([step.extra for step in chosen]).to(device),
            torch.tensor(stops, device=device),
            decoded.row[first],
            [row[: stop + 1] if self.keeps_history else [] for row, stop in zip(decoded.history, stops, strict=True)],
        )

    def decode_all(self, encoded: Encoded, proposals: Proposals) -> Decoded:
        """Decode ``n`` candidates of every sentence, cut by ``--max-candidate-tokens``; the cut changes no result."""
        n, limit = self.options.candidates, self.candidates.max_candidate_tokens
        rows = torch.arange(len(encoded.keys) * n, device=encoded.keys.device)
        if limit is None:
            return self.decode(encoded if n == 1 else encoded.select(rows // n), proposals, rows)
        width = (proposals.longest or limit) if proposals.lengths is None else int(proposals.lengths.max())
        results, history = ResultBuffer(self.symbols.pad), []
        for cut in chunks(rows, width, limit):
            part = self.decode(encoded.select(cut // n), proposals.select(cut), rows[: len(cut)])
            done = Finished(part.tokens, part.scores, part.extra, part.row)
            results.put(cut, done, part.steps)
            history += part.history
        return results.gather(history)

    def decode(self, encoded: Encoded, proposals: Proposals, rows: Tensor) -> Decoded:
        """The loop itself, over ``rows`` = 0 … R − 1.

        A row's result is taken when it is finished; the batch is made smaller when fewer than ``LIVE_SHARE`` of its
        rows are live. With a fixed number of passes the loop never waits for the device; where rows may end earlier, or
        a model predicts lengths anew, it does, once a pass.
        """
        steps = self.model.max_steps(self.options.steps)
        rule = StopRule(self.stopping.rule, self.stopping.stop_window, self.stopping.stop_distance, self.symbols.pad)
        results = ResultBuffer(self.symbols.pad)
        history: list[list[Step]] = [[] for _ in range(len(rows))]
        state, step, live = self.model.start(encoded, proposals), 0, len(rows)
        is_live: Tensor | None = None  # all
        while True:
            if self.keeps_history or self.is_oracle:
                self.record(history, state, rows, is_live)
            verdict = either(rule.verdict(state.tokens), state.done)
            if verdict is not None:
                ended = (verdict if is_live is None else verdict & is_live).nonzero()[:, 0]
                if len(ended):
                    results.put(rows[ended], self.finished(state, ended, len(rows)), step)
                    is_live = ~verdict if is_live is None else is_live & ~verdict
                    live -= len(ended)
            if step == steps or not live:
                break
            if is_live is not None and live < LIVE_SHARE * len(rows):
                going = is_live.nonzero()[:, 0]
                rows, state, is_live = rows[going], state.select(going), None
                rule.select(going)
            step += 1
            self.counters.live_share = live / len(rows)
            state = self.model.refine(state, step, steps)
            self.counters.live_share = 1.0
        if live:
            last = torch.arange(len(rows), device=rows.device) if is_live is None else is_live.nonzero()[:, 0]
            results.put(rows[last], self.finished(state, last, len(rows)), step)
        return results.gather(history)

    def finished(self, state: State, chosen: Tensor, count: int) -> Finished:
        """The text of the chosen ones of a state's ``count`` rows, which are all of them where they are as many."""
        return self.model.finish(state if len(chosen) == count else state.select(chosen))

    def record(self, history: list[list[Step]], state: State, rows: Tensor, is_live: Tensor | None) -> None:
        """Add the output of every live row, its best if it has several, to its history."""
        tokens, scores, extra, owner = self.model.finish(state)
        extra = torch.zeros(len(tokens)) if extra is None else extra
        first = torch.arange(len(tokens), device=tokens.device) if owner is None else first_of_each(owner)
        parts = tokens[first], scores[first].float(), extra[first.to(extra.device)]
        outputs = zip(*(part.cpu() for part in parts), strict=True)
        goes_on = [True] * len(rows) if is_live is None else is_live.tolist()
        for row, is_open, output in zip(rows.tolist(), goes_on, outputs, strict=True):
            if is_open:
                history[row].append(Step(*output))

    def score(self, decoded: Decoded, owner: Tensor, net_input: dict[str, Tensor]) -> Tensor:
        """(N,) candidate scores, by the teacher where there is one, else by the model's own log-probabilities."""
        if self.teacher is None:
            total = decoded.scores.float().sum(1) + decoded.extra
            if self.judge is not None:
                total = total + self.candidates.ngram_weight * self.judge.log_probs(decoded.tokens)
            lengths = (decoded.tokens != self.symbols.pad).sum(1)
        else:
            total, lengths = self.teacher.score(net_input, decoded.tokens, owner)
        norm = self.candidates.norm(is_teachers=self.teacher is not None)
        return normalised(total, lengths, norm, self.candidates.lenpen)

    def chosen(self, score: Tensor, owner: Tensor, sentences: int) -> list[list[int]]:
        """By sentence, the hypotheses that are given, best first."""
        if len(score) == sentences:
            return [[i] for i in range(len(score))]
        return best(score, owner, self.candidates.nbest)

    def hypotheses(
        self, decoded: Decoded, score: Tensor, chosen: list[list[int]], is_empty: list[bool]
    ) -> list[list[Hypothesis]]:
        """The chosen ones as the host wants them: one copy to the host, then plain slices."""
        pad, tokens, scores = self.symbols.pad, decoded.tokens.cpu(), decoded.scores.float().cpu()
        score, steps, row = score.cpu(), decoded.steps.tolist(), decoded.row.tolist()

        def of(i: int) -> Hypothesis:
            return hypothesis(tokens[i], scores[i], score[i], pad, steps[i], decoded.history[row[i]])

        groups = zip(chosen, is_empty, strict=True)
        return [[empty(self.eos) if nothing else of(i) for i in group] for group, nothing in groups]


def first_of_each(owner: Tensor) -> Tensor:
    """(N,) rising owners to the (R,) places where each appears first."""
    is_first = torch.ones_like(owner, dtype=torch.bool)
    is_first[1:] = owner[1:] != owner[:-1]
    return is_first.nonzero()[:, 0]
