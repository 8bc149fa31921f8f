"""The parts of EM training (Sun & Yang 2020) that are not fairseq's programs; examples/em.sh puts them together.

Example: a round.

    nar em candidates --nbest answers/nbest.gz --source-text train.de --source-lang de --target-lang en --output pairs
    fairseq-preprocess --source-lang de --target-lang en --trainpref pairs --srcdict dict.txt --tgtdict dict.txt \\
      --destdir answers/bin
    nar em score --data answers/bin --student student.pt --source-lang de --target-lang en --output scores.gz
    nar em select --nbest answers/nbest.gz --scores scores.gz --lenpen 1 --source-text train.de \\
      --target-text train.en --source-lang de --target-lang en --output selected
    nar em measure --round 0 --selection selected/manifest.json --valid-scores valid.gz --reference valid.en \\
      --hypotheses teacher valid.teacher --hypotheses student valid.student --output round0.json
    nar em goes-on round0.json round1.json
    nar em report round0.json round1.json --output em.json --figure em

`score` prints what the student's scores are: exact, a bound, or a proxy. What follows -- goes to fairseq-generate.
Killed and called again, it does not repeat the shards that are whole. `select` writes the next teacher's training text:
of each source the answer with the highest alpha log p(teacher) + log p(student), of equals the first; --alpha 0 asks
the student alone, as the authors' release does. `goes-on` ends with status 1 where the last round was no better than
those before.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, Sequence

from .. import cli
from ..errors import ToolError
from ..files import read, read_lines, write_lines
from ..provenance import sha256


def parse(argv: Sequence[str]) -> argparse.Namespace:
    end = list(argv).index("--") if "--" in argv else len(argv)
    parser = cli.parser("em", __doc__)
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")

    def part(name: str, help: str) -> argparse.ArgumentParser:
        return parts.add_parser(name, help=help, allow_abbrev=False)

    def add_texts(made: argparse.ArgumentParser) -> None:
        made.add_argument("--source-lang", required=True, metavar="S")
        made.add_argument("--target-lang", required=True, metavar="T")

    candidates = part("candidates", "a pair of texts with a line for each answer of a list")
    candidates.add_argument("--nbest", type=Path, required=True, help="the list, of nar distill")
    candidates.add_argument("--source-text", type=Path, required=True, help="that the teacher translated")
    candidates.add_argument("--output", type=Path, required=True, metavar="STEM", help="STEM.S and STEM.T")
    add_texts(candidates)

    score = part("score", "the student's log-probability of binarised pairs")
    score.add_argument("--data", type=Path, required=True, help="binarised")
    score.add_argument("--subset", default="train")
    score.add_argument("--student", type=Path, required=True, help="its checkpoint")
    score.add_argument("--output", type=Path, required=True, help="the scores; shards are kept beside it, in parts-*")
    for name, default, told in (("max-tokens", 8000, "of a batch"), ("shards", 1, "parts in which it is done")):
        score.add_argument(f"--{name}", type=int, default=default, help=f"{told} (default: {default})")
    score.add_argument("--jobs", type=int, default=1, help="shards at once (default: 1)")
    score.add_argument("--gpus", type=int, default=0, help="spread the shards over so many (default: 0)")
    add_texts(score)

    select = part("select", "the next teacher's training text")
    select.add_argument("--nbest", type=Path, required=True, help="the list, of nar distill")
    select.add_argument("--scores", type=Path, required=True, help="of its candidates, of nar em score")
    select.add_argument("--lenpen", type=float, required=True, help="length penalty of the search that made the list")
    select.add_argument("--alpha", type=float, default=1.0, help="weight of the teacher (default: 1)")
    select.add_argument("--select-norm", default="none", choices=("none", "len"), help="len: compare by the token")
    select.add_argument("--source-text", type=Path, required=True, help="copied as it is")
    select.add_argument("--target-text", type=Path, required=True, help="kept where no answer can be a target")
    select.add_argument("--output", type=Path, required=True, help="folder of train.S, train.T, manifest.json")
    add_texts(select)

    measure = part("measure", "what a round reached, as a file")
    measure.add_argument("--round", type=int, required=True, help="0: plain distillation")
    measure.add_argument("--selection", type=Path, required=True, help="manifest.json of nar em select")
    measure.add_argument("--valid-scores", type=Path, required=True, help="of the valid set, of nar em score")
    measure.add_argument("--reference", type=Path, required=True, help="plain target text of the valid set")
    told = "teacher, student or control, and its plain output; repeatable"
    measure.add_argument("--hypotheses", nargs=2, action="append", required=True, metavar=("WHO", "FILE"), help=told)
    measure.add_argument("--lowercase", action="store_true", help="scores of lower-cased text")
    measure.add_argument("--made-of", nargs="+", type=Path, default=[], help="files whose hashes are kept")
    measure.add_argument("--seed", default="1")
    measure.add_argument("--command", action="append", default=[], metavar="LINE", help="how it was made; repeatable")
    measure.add_argument("--output", type=Path, required=True)

    for name, told in (("goes-on", "whether another round is worth it"), ("report", "table, figures, manifest")):
        made = part(name, told)
        made.add_argument("rounds", nargs="+", type=Path, help="of nar em measure, from round 0 on")
    made.add_argument("--output", type=Path, required=True, help="the manifest of the loop")
    made.add_argument("--name", default="the student")
    made.add_argument("--figure", type=Path, metavar="STEM", help="draw STEM.bleu and STEM.ncmm, as png and svg")

    args = parser.parse_args(argv[:end])
    args.further = tuple(argv[end + 1 :])
    if args.further and args.part != "score":
        raise ToolError(f"nothing stands behind -- of nar em {args.part}")
    return args


def write_json(path: Path, content: Any) -> None:
    write_lines(path, json.dumps(content, indent=1, ensure_ascii=False).split("\n"))


def candidates(args: argparse.Namespace) -> None:
    from ..jobs.scored import write_candidates

    count = write_candidates(args.nbest, args.source_text, args.output, (args.source_lang, args.target_lang))
    print(f"{args.output}: {count:,} pairs")


def score(args: argparse.Namespace) -> None:
    from ..jobs import scored

    for name in ("max_tokens", "shards", "jobs"):
        if getattr(args, name) < 1:
            raise ToolError(f"--{name.replace('_', '-')} wants a whole number above 0, not {getattr(args, name)}")
    made = scored.Scoring(
        pair=(args.source_lang, args.target_lang),
        data=args.data,
        subset=args.subset,
        student=args.student,
        output=args.output,
        max_tokens=args.max_tokens,
        shards=args.shards,
        further=args.further,
    )
    kind = scored.score(made, args.jobs, args.gpus)
    print(f"{args.output}: scores are {kind}")


def select(args: argparse.Namespace) -> None:
    from ..jobs import selection

    if not 0 <= args.alpha < float("inf"):
        raise ToolError(f"--alpha wants a number from 0 on, not {args.alpha}")
    rule = selection.Rule(args.alpha, args.select_norm, args.lenpen)
    langs = (args.source_lang, args.target_lang)
    told = selection.select(rule, args.nbest, args.scores, args.source_text, args.target_text, langs, args.output)
    write_json(args.output / "manifest.json", told)
    print(
        f"{args.output}: {told['lines']} lines, {told['changed']} of them not the first answer, {told['kept']} as they "
        f"were; NCMM {told['ncmm_first']:.4f} of the first answers, {told['ncmm_selected']:.4f} of those selected"
    )


def measure(args: argparse.Namespace) -> None:
    from ..jobs.selection import kind_of, multimodality, read_scores
    from ..measure import rounds

    try:
        selection = json.loads(read(args.selection))
        rule = {name: selection[name] for name in ("kind", "alpha", "norm", "lenpen")}
        ncmm = {"first": selection["ncmm_first"], "selected": selection["ncmm_selected"]}
    except (ValueError, KeyError, TypeError):
        raise ToolError(f"{args.selection} is no manifest of nar em select") from None
    if (kind := kind_of(args.valid_scores)) != rule["kind"]:
        raise ToolError(f"{args.valid_scores} holds scores that are {kind}, those of the selection are {rule['kind']}")
    ncmm["valid"] = multimodality(read_scores(args.valid_scores)).value
    hypotheses = dict(args.hypotheses)
    if missing := {"teacher", "student"} - set(hypotheses):
        raise ToolError(f"--hypotheses of the {min(missing)} are missing")
    if strange := set(hypotheses) - set(rounds.SYSTEMS):
        raise ToolError(f"--hypotheses are of {', '.join(rounds.SYSTEMS)}, not of {min(strange)}")
    references = read_lines(args.reference)
    found = {who: rounds.bleu(read_lines(Path(file)), references, args.lowercase) for who, file in hypotheses.items()}
    try:
        hashes = {path.name: sha256(path) for path in args.made_of}
    except OSError as error:
        raise ToolError(f"cannot read {error.filename}: {error.strerror}") from None
    told: Dict[str, Any] = {"round": args.round, **{who: one["bleu"] for who, one in found.items()}}
    told |= {"signature": found["student"]["signature"], "ncmm": ncmm, "rule": rule}
    told |= {"changed": selection["changed"] / max(1, selection["lines"]), "selection": selection}
    told |= {"seed": args.seed, "made_of_sha256": hashes, "commands": args.command}
    write_json(args.output, told)
    print("\n".join(rounds.table([told])[:2]))


def goes_on(args: argparse.Namespace) -> None:
    from ..measure import rounds

    why = rounds.verdict(rounds.load(args.rounds))
    print(why or "another round may be worth it")
    sys.exit(why is not None)


def report(args: argparse.Namespace) -> None:
    from ..measure import figures, rounds

    found = rounds.load(args.rounds)
    write_json(args.output, {"student": args.name, **found[0]["rule"], "ended": rounds.verdict(found), "rounds": found})
    print("\n".join(rounds.table(found)))
    if args.figure:
        for ending, chart in rounds.charts(found, args.name).items():
            figures.save(chart, args.figure.with_name(f"{args.figure.name}.{ending}"))


PARTS = {
    "candidates": candidates,
    "score": score,
    "select": select,
    "measure": measure,
    "goes-on": goes_on,
    "report": report,
}


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    try:
        PARTS[args.part](args)
    except BrokenPipeError:
        raise
    except OSError as error:  # no place, no right to write
        raise ToolError(str(error)) from None
