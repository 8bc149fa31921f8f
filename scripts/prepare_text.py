"""Raw text to Moses tokens and subword-nmt BPE, and back.

Exactly what ``fairseq-interactive --tokenizer moses --bpe subword_nmt --bpe-codes CODES`` does to a line, so that a
model sees at training what it will see in use. One line in is one line out, whatever stands in it.

    prepare_text.py learn --input train.de:de train.en:en --merges 10000 --codes codes
    prepare_text.py apply --input train.de --lang de --codes codes --output train.bpe.de
    prepare_text.py detokenize --input hypotheses.en --lang en --output plain.en
"""

import argparse
import re
import sys
from io import StringIO
from pathlib import Path
from typing import Callable, List, Tuple

from sacremoses import MosesDetokenizer, MosesTokenizer
from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe

from files import fail, read, write_lines

# All that some program takes for the end of a line, and all other control characters; a tab is an honest space.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
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


def tokenizer(lang: str) -> LineFunction:
    """Line to Moses tokens, as fairseq's ``--tokenizer moses`` with its defaults."""
    tokenize = MosesTokenizer(lang).tokenize
    return lambda line: tokenize(line.strip(), aggressive_dash_splits=True, return_str=True, escape=True)


def segmenter(lang: str, codes: Path) -> LineFunction:
    """Line to BPE tokens, as fairseq's ``--bpe subword_nmt`` after its ``--tokenizer moses``."""
    tokenize = tokenizer(lang)
    try:
        bpe = BPE(StringIO(read(codes).decode("utf-8")))
    except UnicodeDecodeError:
        fail(f"{codes} holds no BPE codes: it is not UTF-8")
    return lambda line: bpe.process_line(tokenize(line))


def detokenizer(lang: str) -> LineFunction:
    """BPE tokens to plain text: fairseq's two decoders one after the other."""
    detokenize = MosesDetokenizer(lang).detokenize
    return lambda line: detokenize((line + " ").replace("@@ ", "").split())


def learn(inputs: List[str], merges: int, codes: Path) -> None:
    """Learns one set of BPE codes from all inputs, each given as FILE:LANG."""
    tokenized: List[str] = []
    for given in inputs:
        path, _, lang = given.rpartition(":")
        if not path:
            fail(f"--input wants FILE:LANG, not {given}")
        tokenized += map(tokenizer(lang), read_lines(Path(path)))
    if not any(len(token) > 1 for line in tokenized for token in line.split()):
        fail("no word of two letters to learn from")
    learned = StringIO()
    learn_bpe(tokenized, learned, merges)
    write_lines(codes, learned.getvalue().split("\n")[:-1])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("learn", "apply", "detokenize"):
        command = commands.add_parser(name)
        if name == "learn":
            command.add_argument("--input", nargs="+", required=True, metavar="FILE:LANG")
            command.add_argument("--merges", type=int, required=True, help="number of BPE merges")
        else:
            command.add_argument("--input", type=Path, required=True)
            command.add_argument("--lang", required=True, help="language code for the Moses rules")
            command.add_argument("--output", type=Path, required=True)
        if name != "detokenize":
            command.add_argument("--codes", type=Path, required=True, help="file of BPE codes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.command == "learn":
        learn(args.input, args.merges, args.codes)
    else:
        convert = segmenter(args.lang, args.codes) if args.command == "apply" else detokenizer(args.lang)
        write_lines(args.output, map(convert, read_lines(args.input)))


if __name__ == "__main__":
    main()
