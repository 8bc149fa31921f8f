"""Simulated acceptance: a decode in which every call gives so many tokens, to see what acceptance would be worth.

The networks compute all that they would. Of the drafts of a call those that are needed are accepted whatever the
verifier says, and the token behind them is the draft's, too, so that its drafter goes on as if it had been right. The
words mean nothing, the times are those of a model whose drafts are as often right: so models that learnt nothing can be
timed.
"""

from dataclasses import replace
from typing import Any

from ..errors import ToolError


def force_length(writer: Any, symbols: Any, length: int) -> None:
    """Every drafted sentence has so many words, none of which ends it: one that was not trained has any number."""
    import torch.nn.functional as F

    writer.length, write = length, writer.sentences

    def sentences(told: Any) -> Any:
        words = write(told)[:, :length]
        words = F.pad(words, (0, length - words.size(1)), value=symbols.pad)
        is_word = (words != symbols.pad) & (words != symbols.eos)
        return F.pad(words.masked_fill(~is_word, symbols.first_word), (0, 1), value=symbols.eos)

    writer.sentences = sentences


def simulate(generator: Any, tokens: int) -> None:
    """Of a generator for the rest of its life. Raises ToolError where nothing is drafted, or by draws; the decode does
    so where fewer tokens are drafted a call."""
    import torch  # which takes seconds, and the clock's other side needs none
    import torch.nn.functional as F

    from nar_plugin.methods.verification import Rule, Verdict

    speculation = getattr(getattr(generator, "model", None), "speculation", None)
    if speculation is None:
        raise ToolError("--simulate-acceptance: nothing is drafted here; it is for models with heads and for --drafter")
    if generator.options.sampling:
        raise ToolError("--simulate-acceptance: not beside --sampling")
    writer = getattr(speculation.drafter, "writer", None)
    if writer is not None:
        force_length(writer, speculation.symbols, generator.options.min_len)
    judge, eos, rule = speculation.verdict, speculation.symbols.eos, Rule(min_block=tokens)

    def verdict(state: Any, draft: Any, log_probs: Any, steps: Any) -> Verdict:
        width, most = draft.tokens.size(1), state.plan.drafts
        if 0 < most < tokens - 1:
            raise ToolError(f"--simulate-acceptance {tokens}: a call gives {most + 1} tokens at most")
        is_needed = torch.arange(width, device=steps.device) < tokens - 1
        needed = draft._replace(is_token=draft.is_token & is_needed)
        count, own = judge(replace(state, plan=replace(state.plan, rule=rule)), needed, log_probs, steps)
        behind = F.pad(draft.tokens, (0, 1), value=eos).gather(1, count[:, None])[:, 0]
        is_draft = F.pad(draft.is_token, (0, 1)).gather(1, count[:, None])[:, 0]
        return Verdict(count, torch.where(is_draft & (behind != eos) & (own != eos), behind, own))

    speculation.verdict = verdict
