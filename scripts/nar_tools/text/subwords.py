"""Lines to Moses tokens and subword-nmt BPE, and back."""

import io
import sys
from contextlib import redirect_stderr
from multiprocessing import get_context
from pathlib import Path
from typing import Callable, Iterator, List, Sequence, TextIO

from ..errors import ToolError
from ..files import read, read_lines, write_lines
from ..progress import progress

ROMANIAN = str.maketrans("ŞşŢţ", "ȘșȚț")  # old code pages have a cedilla for the comma below
STRIPPED = str.maketrans("ȘșȚțĂăÂâÎî", "SsTtAaAaIi")
LineFunction = Callable[[str], str]


def tokenizer(lang: str, normalize: bool = False, romanian: str = "", lowercase: bool = False) -> LineFunction:
    """Line to Moses tokens, as fairseq's ``--tokenizer moses`` with its defaults.

    ``romanian``, which leaves other languages alone: ``comma`` writes s and t with a comma below where they have a
    cedilla, ``plain`` all letters without marks (Sennrich et al. 2016, arXiv 1606.02891, do either by the side).
    """
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    tokenize = MosesTokenizer(lang).tokenize
    changes: List[LineFunction] = []
    if normalize:
        changes.append(MosesPunctNormalizer(lang).normalize)
    if romanian and lang == "ro":
        changes.append(lambda line: line.translate(ROMANIAN))
    if romanian == "plain" and lang == "ro":
        changes.append(lambda line: line.translate(STRIPPED))
    if lowercase:
        changes.append(str.lower)

    def convert(line: str) -> str:
        for change in changes:
            line = change(line)
        return str(tokenize(line.strip(), aggressive_dash_splits=True, return_str=True, escape=True))

    return convert


def segmenter(codes: Path, tokenize: LineFunction) -> LineFunction:
    """Line to BPE tokens, as fairseq's ``--bpe subword_nmt`` after its ``--tokenizer moses``."""
    from subword_nmt.apply_bpe import BPE

    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            bpe = BPE(io.StringIO(read(codes).decode("utf-8")))
    except UnicodeDecodeError:
        raise ToolError(f"{codes} holds no BPE codes: it is not UTF-8") from None
    except SystemExit:  # as subword-nmt ends where a line is no pair
        what = complaint.getvalue().splitlines()[0].removeprefix("Error: ")
        raise ToolError(f"{codes} holds no BPE codes: {what}") from None
    return lambda line: bpe.process_line(tokenize(line))


def detokenizer(lang: str) -> LineFunction:
    """BPE tokens to plain text: fairseq's two decoders one after the other."""
    from sacremoses import MosesDetokenizer

    detokenize = MosesDetokenizer(lang).detokenize
    return lambda line: detokenize((line + " ").replace("@@ ", "").split())


def converted(convert: LineFunction, lines: Sequence[str], jobs: int, what: str) -> Iterator[str]:
    """Every line by ``convert``, in ``jobs`` processes; ``what`` is done is shown as it goes on."""
    if jobs == 1:
        yield from progress(map(convert, lines), what, "lines", len(lines))
        return
    global _convert
    _convert = convert  # forked processes have it without being sent it
    with get_context("fork").Pool(jobs) as pool:
        yield from progress(pool.imap(_converted, lines, chunksize=1000), what, "lines", len(lines))


_convert: LineFunction


def _converted(line: str) -> str:
    return _convert(line)


class _BarAlone(io.StringIO):
    """In place of stderr for subword-nmt: lets its bar through to a terminal, and nothing else."""

    def __init__(self, screen: TextIO) -> None:
        super().__init__()
        self.screen = screen

    def write(self, text: str) -> int:
        if self.screen.isatty() and not text.startswith("no pair"):
            self.screen.write(text)
            self.screen.flush()
        return len(text)


def learn(inputs: Sequence[str], merges: int, codes: Path, jobs: int = 1, tokenized: bool = False) -> None:
    """Learns one set of BPE codes from all inputs, each given as FILE:LANG, and prints how many merges it has."""
    from subword_nmt.learn_bpe import learn_bpe

    lines: List[str] = []
    for given in inputs:
        path, _, lang = given.rpartition(":")
        if not path:
            raise ToolError(f"--input wants FILE:LANG, not {given}")
        given_lines = read_lines(Path(path), clean=True)
        lines += given_lines if tokenized else converted(tokenizer(lang), given_lines, jobs, Path(path).name)
    if not any(len(token) > 1 for line in lines for token in line.split()):
        raise ToolError("no word of two letters to learn from")
    learned = io.StringIO()
    with redirect_stderr(_BarAlone(sys.stderr)):
        learn_bpe(lines, learned, merges)
    version, *pairs = learned.getvalue().split("\n")[:-1]
    write_lines(codes, [version, *pairs])
    fewer = f" ({merges:,} asked for; no pair occurs twice any more)" if len(pairs) < merges else ""
    print(f"{codes}: {len(pairs):,} merges learnt{fewer}", file=sys.stderr)
