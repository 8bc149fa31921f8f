"""The two ends of scripts/distill.sh: is the text what was binarised, and the teacher's output as a training set.

`check` compares the text with the binarised data before the teacher starts. `collect` puts the answers of all shards
back into the order of the text: one line for each line, the original target where the teacher gave no usable answer.
"""

import argparse
import gzip
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from files import fail, whole, write_lines
from provenance import now, sha256

Answers = Dict[int, List[Tuple[str, str]]]
SAMPLE = 1000  # lines compared with the binarised data, evenly spaced


def read_lines(path: Path) -> List[str]:
    r"""The lines as they stand, parted by ``\n`` alone."""
    with open(path, encoding="utf-8", errors="replace", newline="\n") as lines:
        return [line.rstrip("\n") for line in lines]


def check(data: Path, pair: List[str], lang: str, text: Path) -> None:
    """Ends the program unless `text` has as many lines as the binarised train split, and the same ones."""
    from fairseq.data import Dictionary, data_utils

    dictionary = Dictionary.load(str(data / f"dict.{lang}.txt"))
    prefixes = [data / f"train.{a}-{b}.{lang}" for a, b in (pair, pair[::-1])]
    found = [data_utils.load_indexed_dataset(str(prefix), dictionary) for prefix in prefixes]
    dataset = next((dataset for dataset in found if dataset is not None), None)
    if dataset is None:
        fail(f"no binarised train split: {prefixes[0]}")
    lines = read_lines(text)
    if len(lines) != len(dataset):
        fail(
            f"{text} has {len(lines)} lines, the train split in {data} {len(dataset)}: give the text that was binarised"
        )
    for i in range(0, len(lines), max(1, len(lines) // SAMPLE)):
        if dictionary.encode_line(lines[i], add_if_not_exist=False).tolist() != dataset[i].tolist():
            fail(
                f"line {i + 1} of {text} is not what the train split in {data} holds: give the text that was binarised"
            )


def hypotheses(part: Path) -> Iterator[Tuple[int, str, str]]:
    """(sentence id, score, text) of every ``H-`` line; the score is fairseq's, in bits a token."""
    for line in read_lines(part):
        if line.startswith("H-"):
            name, score, text = line.split("\t", 2)
            yield int(name[2:]), score, text.strip()


def read_answers(parts: List[Path]) -> Answers:
    """All hypotheses of all shards by sentence, best first as the teacher gave them."""
    answers: Answers = {}
    for part in parts:
        for sentence, score, text in hypotheses(part):
            answers.setdefault(sentence, []).append((score, text))
    return answers


def fault(answer: List[Tuple[str, str]]) -> str:
    """Why the best hypothesis is no use as a target; empty if it is one."""
    if not answer:
        return "skipped"  # longer than the teacher's positions
    tokens = answer[0][1].split()
    return "empty" if not tokens else "unknown words" if "<unk>" in tokens else ""


def distilled(answers: Answers, originals: List[str]) -> Tuple[List[str], Counter]:
    """One target for each original, and how many originals had to stay, by reason."""
    faults = [fault(answers.get(i, [])) for i in range(len(originals))]
    lines = [original if faults[i] else answers[i][0][1] for i, original in enumerate(originals)]
    return lines, Counter(reason for reason in faults if reason)


def write_nbest(path: Path, answers: Answers) -> None:
    """All hypotheses, ``id ||| text ||| score``, in the order of the text; written whole or not at all."""
    with whole(path) as unfinished, gzip.open(unfinished, "wt", encoding="utf-8", newline="\n") as out:
        for sentence in sorted(answers):
            out.writelines(f"{sentence} ||| {text} ||| {score}\n" for score, text in answers[sentence])


def collect(args: argparse.Namespace) -> None:
    """Writes train.S, train.T, with several hypotheses nbest.gz, and last manifest.json."""
    source_lang, target_lang = args.pair
    answers = read_answers(args.parts)
    lines, restored = distilled(answers, read_lines(args.target_text))
    outputs = [args.output / f"train.{source_lang}", args.output / f"train.{target_lang}"]
    with whole(outputs[0]) as unfinished:
        shutil.copyfile(args.source_text, unfinished)
    write_lines(outputs[1], lines)
    if args.nbest > 1:
        outputs.append(args.output / "nbest.gz")
        write_nbest(outputs[-1], answers)
    counts = {"lines": len(lines), "distilled": len(lines) - sum(restored.values()), "restored": dict(restored)}
    write_lines(args.output / "manifest.json", json.dumps(manifest(args, outputs, counts), indent=2).split("\n"))
    print(f"{args.output}: {counts['lines']} lines, {counts['distilled']} distilled, originals kept: {dict(restored)}")


def manifest(args: argparse.Namespace, outputs: List[Path], counts: Dict[str, Any]) -> Dict[str, Any]:
    """What one has to know to judge the set or to make it again."""
    teachers = [Path(path) for path in args.teacher.split(os.pathsep)]
    return {
        "split": "train",
        "languages": args.pair,
        "teacher": {str(path): sha256(path) for path in teachers},
        "teacher_bleu": args.teacher_bleu,
        "beam": args.beam,
        "lenpen": args.lenpen,
        "nbest": args.nbest,
        "inputs_sha256": {str(path): sha256(path) for path in (args.source_text, args.target_text)},
        "outputs_sha256": {path.name: sha256(path) for path in outputs},
        "counts": counts,
        "command": args.made_by,
        "commit": args.commit,
        "date": now(),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    checking, collecting = commands.add_parser("check"), commands.add_parser("collect")
    for command in (checking, collecting):
        command.add_argument("--pair", nargs=2, required=True, metavar="LANG", help="source and target language")
        command.add_argument("--source-text", type=Path, required=True)
        command.add_argument("--target-text", type=Path, required=True)
    checking.add_argument("--data", type=Path, required=True, help="folder of binarised data")
    collecting.add_argument("--parts", type=Path, nargs="+", required=True, help="output of fairseq-generate")
    collecting.add_argument("--output", type=Path, required=True, help="folder")
    collecting.add_argument("--nbest", type=int, required=True)
    collecting.add_argument("--beam", type=int, required=True)
    collecting.add_argument("--lenpen", type=float, required=True)
    for option in ("--teacher", "--teacher-bleu", "--made-by", "--commit"):
        collecting.add_argument(option, required=option == "--teacher", help="for the manifest")
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.command == "collect":
        return collect(args)
    for lang, text in zip(args.pair, (args.source_text, args.target_text)):
        check(args.data, args.pair, lang, text)


if __name__ == "__main__":
    main()
