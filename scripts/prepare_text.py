"""Raw text to Moses tokens and subword-nmt BPE, and back.

Exactly what ``fairseq-interactive --tokenizer moses --bpe subword_nmt --bpe-codes CODES`` does to a line, so that a
model sees at training what it will see in use. One line in is one line out, whatever stands in it. What some papers
did besides, and fairseq-interactive does not, is asked for: ``--lowercase``, ``--normalize-punctuation``,
``--romanian``; with ``--tokenized`` the input of ``learn`` and ``apply`` is what ``tokenize`` wrote.

    prepare_text.py learn --input train.de:de train.en:en --merges 10000 --codes codes
    prepare_text.py apply --input train.de --lang de --codes codes --output train.bpe.de
    prepare_text.py tokenize --input train.de --lang de --output train.tok.de
    prepare_text.py detokenize --input hypotheses.en --lang en --output plain.en
"""

import argparse
import re
import sys
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Callable, Iterator, List, Tuple

from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer
from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe

from files import fail, read, write_lines

# All that some program takes for the end of a line, and all other control characters; a tab is an honest space.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
ROMANIAN = str.maketrans("ŞşŢţ", "ȘșȚț")  # old code pages have a cedilla for the comma below
STRIPPED = str.maketrans("ȘșȚțĂăÂâÎî", "SsTtAaAaIi")
LineFunction = Callable[[str], str]


def clean(raw: bytes) -> Tuple[str, bool]:
    """One line as text without control characters, and whether it had to be repaired for that."""
    text = raw.decode("utf-8", errors="replace")
    repaired = CONTROL.sub(" ", text)
    return repaired, repaired.encode() != raw


def read_lines(path: Path) -> List[str]:
    r"""The lines of a file, parted by ``\n`` alone and cleaned; prints their number. Missing: ends the program."""
    raw = read(path).split(b"\n")
    if not raw[-1]:
        raw.pop()
    cleaned = [clean(line) for line in raw]
    repaired = sum(was_repaired for _, was_repaired in cleaned)
    note = f", {repaired} repaired (wrong encoding or control characters)" if repaired else ""
    print(f"{path}: {len(cleaned)} lines{note}", file=sys.stderr)
    return [line for line, _ in cleaned]


def tokenizer(lang: str, normalize: bool = False, romanian: str = "", lowercase: bool = False) -> LineFunction:
    """Line to Moses tokens, as fairseq's ``--tokenizer moses`` with its defaults.

    ``romanian``, which leaves other languages alone: ``comma`` writes s and t with a comma below where they have a
    cedilla, ``plain`` all letters without marks (Sennrich et al. 2016, arXiv 1606.02891, do either by the side).
    """
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
    try:
        bpe = BPE(StringIO(read(codes).decode("utf-8")))
    except UnicodeDecodeError:
        fail(f"{codes} holds no BPE codes: it is not UTF-8")
    return lambda line: bpe.process_line(tokenize(line))


def detokenizer(lang: str) -> LineFunction:
    """BPE tokens to plain text: fairseq's two decoders one after the other."""
    detokenize = MosesDetokenizer(lang).detokenize
    return lambda line: detokenize((line + " ").replace("@@ ", "").split())


def converted(convert: LineFunction, lines: List[str], jobs: int) -> Iterator[str]:
    """Every line by ``convert``, in ``jobs`` processes."""
    if jobs == 1:
        yield from map(convert, lines)
        return
    global _convert
    _convert = convert  # forked processes have it without being sent it
    with get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(_converted, lines, chunksize=1000)


_convert: LineFunction


def _converted(line: str) -> str:
    return _convert(line)


def learn(inputs: List[str], merges: int, codes: Path, jobs: int = 1, tokenized: bool = False) -> None:
    """Learns one set of BPE codes from all inputs, each given as FILE:LANG."""
    lines: List[str] = []
    for given in inputs:
        path, _, lang = given.rpartition(":")
        if not path:
            fail(f"--input wants FILE:LANG, not {given}")
        given_lines = read_lines(Path(path))
        lines += given_lines if tokenized else converted(tokenizer(lang), given_lines, jobs)
    if not any(len(token) > 1 for line in lines for token in line.split()):
        fail("no word of two letters to learn from")
    learned = StringIO()
    learn_bpe(lines, learned, merges)
    write_lines(codes, learned.getvalue().split("\n")[:-1])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("learn", "apply", "tokenize", "detokenize"):
        command = commands.add_parser(name)
        command.add_argument("--jobs", type=int, default=1, help="processes")
        if name == "learn":
            command.add_argument("--input", nargs="+", required=True, metavar="FILE:LANG")
            command.add_argument("--merges", type=int, required=True, help="number of BPE merges")
        else:
            command.add_argument("--input", type=Path, required=True)
            command.add_argument("--lang", required=True, help="language code for the Moses rules")
            command.add_argument("--output", type=Path, required=True)
        if name in ("learn", "apply"):
            command.add_argument("--codes", type=Path, required=True, help="file of BPE codes")
            command.add_argument("--tokenized", action="store_true", help="the input is tokenised already")
        if name == "tokenize":
            command.add_argument("--lowercase", action="store_true")
            command.add_argument("--normalize-punctuation", action="store_true", help="as Moses' normalize-punctuation")
            command.add_argument("--romanian", choices=("comma", "plain"), default="", help="marks of Romanian letters")
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error("--jobs wants 1 or more")
    return args


def converter(args: argparse.Namespace) -> LineFunction:
    """What ``apply``, ``tokenize`` or ``detokenize`` does to a line."""
    if args.command == "detokenize":
        return detokenizer(args.lang)
    if args.command == "tokenize":
        return tokenizer(args.lang, args.normalize_punctuation, args.romanian, args.lowercase)
    return segmenter(args.codes, (lambda line: line) if args.tokenized else tokenizer(args.lang))


def main() -> None:
    args = parse()
    if args.command == "learn":
        learn(args.input, args.merges, args.codes, args.jobs, args.tokenized)
    else:
        write_lines(args.output, converted(converter(args), read_lines(args.input), args.jobs))


if __name__ == "__main__":
    main()
