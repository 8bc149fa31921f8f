"""A system of a benchmark that CTranslate2 decodes, on the same sentences as fairseq and with the same search.

Both are given ids: a source is the words of the binarised sentence, its end symbol the last, laid out before the clock
starts. fairseq loads the sentences and the model; under the clock it computes nothing.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence
from unittest import mock

from ..errors import ToolError
from ..progress import progress
from . import conversion
from .entrants import COMPUTE_TYPES
from .timed import Timed, Timing

LEAST = 99.0
"""% of the sentences whose tokens must be fairseq's, computed in float32."""
REFUSED = (
    *("match_source_len", "unnormalized", "unkpen", "no_repeat_ngram_size", "sampling", "temperature"),
    *("diverse_beam_groups", "diversity_rate", "retain_dropout", "lm_path", "print_alignment"),
)
"""Options of fairseq's search that are not handed on."""
SHORTLIST = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
"""A flag of our task that its autoregressive models refuse, and CTranslate2 has."""
SHORTLIST.add_argument("--shortlist", type=Path)


@dataclass(frozen=True)
class Sources:
    """A batch before the clock starts: the words of each sentence, and decoder steps that none may exceed."""

    words: List[List[str]]
    steps: int


class Translated(Timed):
    """A system under the clock. ``agreement`` comes before all else."""

    def __init__(self, argv: Sequence[str], engine: str) -> None:
        import torch

        version = conversion.library().__version__  # first, since to load a model takes seconds
        told, argv = SHORTLIST.parse_known_args(argv)
        super().__init__(argv)
        self.check()
        self.threads = torch.get_num_threads()
        self.has_shortlist = told.shortlist is not None
        self.translator = self.converted(COMPUTE_TYPES[engine], told.shortlist)
        self.about = {"engine_version": str(version), "compute_type": str(self.translator.compute_type)}

    def check(self) -> None:
        """Raises ToolError for what CTranslate2 would decode in another way, or not at all."""
        from fairseq.dataclass.configs import GenerationConfig

        conversion.check(self.models)
        if self.is_gpu or self.cfg.common.fp16:
            raise ToolError("CTranslate2 is measured on a CPU, in float32 or int8: --cpu, and no --fp16")
        usual = GenerationConfig()
        changed = [name for name in REFUSED if getattr(self.cfg.generation, name) != getattr(usual, name)]
        if changed:
            raise ToolError(f"CTranslate2 is measured without --{changed[0].replace('_', '-')}")

    def converted(self, compute_type: str, shortlist: Optional[Path] = None) -> Any:
        return conversion.translator(self.models[0], self.task, compute_type, self.threads, shortlist)

    def prepared(self, sample: Any) -> Sources:
        """The words of a batch; ``steps`` as fairseq's generator reckons them, one of them for the end symbol."""
        symbols, pad = self.task.source_dictionary.symbols, self.task.source_dictionary.pad()
        tokens, generator = sample["net_input"]["src_tokens"], self.generator
        longest = int(generator.max_len_a * tokens.size(1) + generator.max_len_b)
        words = [[symbols[i] for i in row if i != pad] for row in tokens.tolist()]
        return Sources(words, min(longest, generator.max_len - 1) + 1)

    def step(self, sample: Sources) -> List[List[str]]:
        found = self.translate(self.translator, sample, self.generator.beam_size, self.has_shortlist)
        self.calls += max(map(len, found))
        return found

    def translate(self, translator: Any, sources: Sources, beam: int, has_shortlist: bool = False) -> List[List[str]]:
        """The words of each best hypothesis, decoded in one batch, the end symbol among them if it was reached."""
        found = translator.translate_batch(
            sources.words,
            beam_size=beam,
            length_penalty=self.generator.len_penalty,
            min_decoding_length=self.generator.min_len,
            max_decoding_length=sources.steps,
            max_input_length=0,  # no source is cut
            use_vmap=has_shortlist,
            return_end_token=True,  # which fairseq counts too where it divides by the length
        )
        return [one.hypotheses[0] for one in found]

    def tokens(self, found: List[List[str]]) -> List[Any]:
        """The ids of the hypotheses. fairseq forces the end symbol in the last step, CTranslate2 does not."""
        import torch

        index, end = self.task.target_dictionary.index, self.generator.eos
        ids = [[index(word) for word in words] for words in found]
        return [torch.tensor(one if one[-1] == end else [*one[:-1], end]) for one in ids]

    def time(self, sentences: List[int]) -> List[Timing]:
        """As of any system; of a beam CTranslate2 does not say how many steps it made."""
        is_greedy = self.generator.beam_size == 1
        return [(ms, calls if is_greedy else None, bare) for ms, calls, bare in super().time(sentences)]

    def agreement(self, sentences: Optional[List[int]]) -> Dict[str, Any]:
        """Fields of the row: % of the sentences (None: all) whose tokens in float32 are those of fairseq's generator.

        Without a shortlist. Both search with the system's beam, or greedily where --min-len forbids the end symbol:
        CTranslate2 shares its probability among the other words and fairseq does not, which changes what a beam
        prefers. Raises ToolError below LEAST.
        """
        beam = self.generator.beam_size if self.generator.min_len <= 1 else 1
        is_exact = self.translator.compute_type == "float32" and not self.has_shortlist
        exact = self.translator if is_exact else self.converted("float32")
        batches = self.batches() if sentences is None else self.samples(sentences)
        same: List[bool] = []
        for sample in progress(batches, "compare", "batches"):
            theirs = self.tokens(self.translate(exact, self.prepared(sample), beam))
            same += [a.tolist() == b.tolist() for a, b in zip(self.tokens_of_fairseq(sample, beam), theirs)]
        share = 100 * sum(same) / len(same)
        if share < LEAST:
            raise ToolError(
                f"CTranslate2 finds fairseq's tokens in {share:.1f} % of {len(same)} sentences, not in {LEAST:g} %"
            )
        return {"agreement": round(share, 2), **self.about}

    def samples(self, sentences: List[int]) -> Iterator[Any]:
        """Some sentences in batches."""
        size = self.cfg.dataset.batch_size
        for first in range(0, len(sentences), size):
            yield self.dataset.collater([self.dataset[i] for i in sentences[first : first + size]])

    def tokens_of_fairseq(self, sample: Any, beam: int) -> List[Any]:
        with mock.patch.object(self.generator, "beam_size", beam):
            return super().tokens(super().step(sample))
