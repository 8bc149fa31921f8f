"""sacreBLEU's tokeniser for a language, in validation."""

import functools
from contextlib import contextmanager
from typing import Iterator, Optional

import sacrebleu
from sacrebleu.metrics import BLEU

from ..methods.contract import UsageError

OF_LANGUAGE = {"zh": ("zh",), "ja": ("ja-mecab", "char"), "ko": ("ko-mecab", "char")}
"""sacreBLEU's own advice; a tokeniser whose library is missing gives way to the next."""


def is_usable(tokenizer: str) -> bool:
    try:
        BLEU(tokenize=tokenizer)
    except (RuntimeError, ImportError):
        return False
    return True


def tokenizer_of(lang: Optional[str]) -> str:
    """That of a target language: ``zh``, ``zh_CN``, ...; 13a for all that have spaces between words."""
    known = OF_LANGUAGE.get((lang or "").lower().replace("-", "_").split("_")[0], ())
    return next(filter(is_usable, known), BLEU.TOKENIZER_DEFAULT)


def signature_of(tokenizer: str) -> str:
    """What must stand beside a score. Raises UsageError for a tokeniser that sacreBLEU does not have or cannot load."""
    if tokenizer not in BLEU.TOKENIZERS:
        raise UsageError(f"--eval-bleu-tokenize {tokenizer}: sacreBLEU has {', '.join(sorted(BLEU.TOKENIZERS))}")
    if not is_usable(tokenizer):
        raise UsageError(f"--eval-bleu-tokenize {tokenizer}: its library is not installed (pip install sacrebleu[ja])")
    score = BLEU(tokenize=tokenizer)
    score.corpus_score(["a"], [["a"]])
    return str(score.get_signature())


@contextmanager
def tokenized(tokenizer: str) -> Iterator[None]:
    """The host calls ``sacrebleu.corpus_bleu`` without a word of its tokeniser, unless the text has tokens already."""
    real = sacrebleu.corpus_bleu
    sacrebleu.corpus_bleu = functools.partial(real, tokenize=tokenizer)
    try:
        yield
    finally:
        sacrebleu.corpus_bleu = real
