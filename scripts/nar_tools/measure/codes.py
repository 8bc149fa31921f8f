"""Where a latent transformer loses: the same sentences decoded from true, foreign and predicted codes."""

from typing import Any, Dict, List, NamedTuple, Sequence

import torch
from torch import Tensor

from nar_plugin.methods.quantizers import perplexity
from nar_plugin.methods.symbols import right_padded

from ..errors import ToolError
from ..progress import progress
from ..text.subwords import detokenizer
from .scores import scores
from .system import System

SOURCES = ("true", "foreign", "forced", "predicted")
"""Codes of the target; of another sentence; the predictor's, each given true ones before it; the predictor's own."""


class Found(NamedTuple):
    """``texts``: by source of codes, detokenised sentences; ``word_nats``, ``code_nats``: sums; ``counts``: (K,)."""

    texts: Dict[str, List[str]]
    words: int
    word_nats: float
    codes: int
    code_nats: float
    right_codes: int
    counts: Tensor


def foreign(codes: Tensor, is_code: Tensor) -> Tensor:
    """(R, M) codes to those of the row before, repeated from their beginning where it has fewer."""
    others, sizes = codes.roll(1, 0), is_code.sum(1).roll(1, 0)
    places = torch.arange(codes.size(1), device=codes.device) % sizes[:, None]
    return others.gather(1, places)


@torch.no_grad()
def found(system: System) -> Found:
    """All sentences of --gen-subset, their references' lengths given. Raises ToolError for a model without codes."""
    model, task = system.models[0], system.task
    if not hasattr(model, "code_log_probs"):
        raise ToolError(f"{system.paths[0]} has no codes: --arch latent_transformer with --latent vq and the like has")
    texts: Dict[str, Dict[int, str]] = {source: {} for source in SOURCES}
    sums: Dict[str, float] = dict.fromkeys(("words", "word_nats", "codes", "code_nats", "right_codes"), 0)
    counts, detokenize = torch.zeros(model.quantiser.size), detokenizer(task.cfg.target_lang)
    for sample in map(system.on_device, progress(system.batches(), "codes", "batches")):
        target, is_token = right_padded(sample["target"], model.symbols.pad)
        encoded, lengths = model.encode(sample["net_input"]), is_token.sum(1)
        codes, is_code = model.codes_of(encoded, target, model.whole_canvas(encoded, lengths))
        of_codes = model.code_log_probs(encoded, codes)
        candidates = {"true": codes, "foreign": foreign(codes, is_code), "forced": of_codes.argmax(-1)}
        candidates["predicted"] = model.predicted_codes(encoded, is_code.sum(1))
        for source, chosen in candidates.items():
            log_probs = model.word_log_probs(encoded, chosen.masked_fill(~is_code, 0), is_code, target.size(1))
            if source == "true":
                sums["word_nats"] -= float(log_probs.gather(2, target[..., None])[..., 0][is_token].sum())
            log_probs[..., list(model.banned)] = -torch.inf
            said = log_probs.argmax(-1).masked_fill(~is_token, model.symbols.pad)
            lines = [task.target_dictionary.string(row[row != model.symbols.pad]) for row in said]
            texts[source].update(zip(sample["id"].tolist(), map(detokenize, lines)))
        sums["words"] += int(is_token.sum())
        sums["codes"] += int(is_code.sum())
        sums["code_nats"] -= float(of_codes.gather(2, codes[..., None])[..., 0][is_code].sum())
        sums["right_codes"] += int((of_codes.argmax(-1) == codes)[is_code].sum())
        counts += torch.bincount(codes[is_code].cpu(), minlength=len(counts))
    in_order = {source: [lines[i] for i in range(len(system.dataset))] for source, lines in texts.items()}
    return Found(in_order, counts=counts, **sums)  # type: ignore[arg-type]


def lines_of(found: Found, references: Sequence[str]) -> List[str]:
    """What is printed."""
    bits = torch.tensor(2.0).log().item()
    lines = ["codes      BLEU"] if references else []
    for source in SOURCES if references else ():
        lines.append(f"{source:<9} {scores(found.texts[source], references)['bleu']:5.2f}")
    used = int((found.counts > 0).sum())
    return [
        *lines,
        f"bits a word given the true codes: {found.word_nats / found.words / bits:.3f}",
        f"bits a code of the predictor: {found.code_nats / found.codes / bits:.3f}",
        f"codes that it predicts rightly: {100 * found.right_codes / found.codes:.1f} %",
        f"codes used: {used:,} of {len(found.counts):,}, perplexity {perplexity(found.counts):.1f}",
        f"codes a sentence: {found.codes / len(found.texts['true']):.2f}",
    ]


def grouped(words: Sequence[str], codes: Sequence[int], width: int) -> str:
    """The words that each code stands for, behind it."""
    return " ".join(f"[{code}] {' '.join(words[i * width : (i + 1) * width])}" for i, code in enumerate(codes))


def marked(words: Sequence[str], before: Sequence[str]) -> str:
    """Words with those that differ from what stood there before between asterisks."""
    return " ".join(word if word == old else f"*{word}*" for word, old in zip(words, before, strict=True))


@torch.no_grad()
def pages(system: System, count: int) -> List[str]:
    """Of the first sentences: what is said from the predictor's codes, with the words of each, and then, code by code,
    what is said where it is the next most probable one."""
    model, task = system.models[0], system.task
    lines: List[str] = []
    for number in range(min(count, len(system.dataset))):
        sample = system.on_device(system.dataset.collater([system.dataset[number]]))
        encoded, target = model.encode(sample["net_input"]), sample["target"]
        _, is_code = model.codes_of(encoded, target, model.whole_canvas(encoded, torch.tensor([target.size(1)])))
        codes = model.predicted_codes(encoded, is_code.sum(1))
        second = model.code_log_probs(encoded, codes).topk(2).indices[0, :, 1]

        def said(chosen: Tensor) -> List[str]:
            log_probs = model.word_log_probs(encoded, chosen, is_code, target.size(1))  # noqa: B023
            log_probs[..., list(model.banned)] = -torch.inf
            return [task.target_dictionary[i] for i in log_probs.argmax(-1)[0].tolist()]

        words = said(codes)
        source = task.source_dictionary.string(sample["net_input"]["src_tokens"][0])
        lines += ["", f"{number}  {source}", f"   {grouped(words, codes[0].tolist(), model.cfg.compression)}"]
        for i, other in enumerate(second.tolist()):
            changed = codes.clone()
            changed[0, i] = other
            lines.append(f"   {int(codes[0, i])} -> {other}: {marked(said(changed), words)}")
    return lines


def main(argv: Sequence[str], references: Sequence[str], shown: int) -> List[str]:
    system: Any = System(argv)
    if references and len(references) != len(system.dataset):
        raise ToolError(f"--reference has {len(references)} lines for {len(system.dataset)} sentences")
    return lines_of(found(system), references) + pages(system, shown)
