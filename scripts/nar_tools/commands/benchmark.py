"""Measures quality and speed of several systems in one run, and puts them as rows into a results.json.

A system is an id and the flags of fairseq-generate as one would type them, and a few more: --train WORDS (what it was
trained on), --baseline NAME (which of the teacher's searches its speed is compared with, by default beam5),
--curve FILE (of nar curve: whether it has converged) and --engine NAME (what computes the networks). --teacher stands
for the systems ar-greedy, ar-beam3 and ar-beam5, and ar-beam4 where it is named. Hypotheses lose subword-nmt's marks
and are detokenised by Moses, whatever the flags say of it. The fields of a row: scripts/nar_tools/measure/results.py.

Every system is a process of its own, and only one of them computes at a time. Each first decodes all sentences in
batches, for the scores. Then all decode the same sample, a sentence at a time, in short turns, A-B-A-B, several times.

--engine ctranslate2 and ctranslate2-int8: CTranslate2 decodes an autoregressive transformer of fairseq in its stead,
from ids to ids, with the beam, lengths and length penalty that the flags say. Before any time counts its tokens in
float32 must be fairseq's in 99 % of the sentences; where --min-len forbids the end symbol both search greedily for
this, since they weigh the hypotheses of a beam differently. Other engines are flags of the plugin's task. With
--competitor ID every row says how it compares with that system.

With --batch-sizes N... also the throughput, in sentences a second, of the timed sentences in batches of these sizes,
sorted by length; the systems take turns.

With --forced-length N in place of --reference there are no scores, only times: of systems whose flags force N tokens on
every hypothesis, which is checked (--min-len N --max-len-a 0 --max-len-b N for fairseq's own search; for ours
--gold-target-len and references of N tokens; --arch ctc can be given no length: its sources have N tokens).
With --simulate-acceptance N among a system's flags every call of what verifies drafts gives N tokens, whatever they
are: what heads or a --drafter would gain if they were as often right; ms less bare ms is what the loop itself takes.
Its words mean nothing, so that it is for --forced-length alone, where none are kept, and its rows say so.
Of several lengths each is a run; the word LENGTH stands for it, in the folder of the data and in the systems' flags.

Example:
    nar benchmark joined/LENGTH/bin --forced-length 25 100 --output lengths.json \\
        --teacher "--path teacher.pt --user-dir nar_plugin --task translation_nar
                   --min-len LENGTH --max-len-a 0 --max-len-b LENGTH" \\
        --system cmlm-t4 "--path student.pt --user-dir nar_plugin --task translation_nar --gold-target-len"
    nar benchmark bin --reference test.en --output results.json \\
        --teacher "--train raw --path teacher.pt --user-dir nar_plugin --task translation_nar" \\
        --system cmlm-t4 "--train distilled --baseline beam4 --path student.pt --user-dir nar_plugin
                          --task translation_nar --iter-decode-max-iter 3 --iter-decode-with-beam 2" \\
        --system ct2-beam5 "--engine ctranslate2 --path teacher.pt --user-dir nar_plugin --task translation_nar" \\
        --competitor ct2-beam5 --batch-sizes 1 8 64
"""

import argparse
import os
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import List, Sequence

from .. import cli, files
from ..errors import ToolError
from ..measure import entrants, runs, tables
from ..measure.clock import Worker, is_noisy
from ..measure.entrants import Entrant
from ..measure.results import Row
from ..text import join


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.parser("benchmark", __doc__)
    add = parser.add_argument
    add("data", help="folder that fairseq-preprocess wrote")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--reference", type=Path, help="raw text, a line a sentence")
    forced = "no scores; every hypothesis has N tokens (several: one run each)"
    what.add_argument("--forced-length", type=int, nargs="+", metavar="N", help=forced)
    add("--output", type=Path, required=True, help="rows are put into this results.json")
    add("--hypotheses", type=Path, metavar="DIR", help="for ID.txt (default: hypotheses/ beside --output)")
    add("--system", nargs=2, action="append", default=[], metavar=("ID", "FLAGS"), help="more than once")
    add("--teacher", metavar="FLAGS", help="without --beam")
    add("--competitor", metavar="ID", help="the system that every other is compared with, beside its baseline")
    add("--source-lang")
    add("--target-lang")
    add("--batch-size", type=int, default=50, help="for the scores (default 50); times are at batch 1")
    told = "how many are timed (default: 200; of a forced length 2,000 tokens, from 3 to 20 sentences)"
    add("--sentences", type=int, help=told)
    add("--sample-seed", type=int, default=1, help="which are timed (default 1)")
    add("--repeats", type=int, default=3, help="how often each is timed (default 3)")
    add("--batch-sizes", type=int, nargs="+", default=[], metavar="N", help="throughput is measured of these too")
    add("--threads", type=int, default=1, help="of each process (default 1)")
    add("--allow-noise", action="store_true", help="measure even if other processes run, and mark the rows")
    args = parser.parse_args(argv)
    counts = [args.batch_size, args.repeats, args.threads, *args.batch_sizes, *(args.forced_length or [1])]
    if min(counts) < 1 or args.sentences is not None and args.sentences < 1:
        parser.error("--batch-size(s), --sentences, --repeats, --threads and --forced-length need 1 or more")
    return args


def at_length(args: argparse.Namespace, length: int) -> argparse.Namespace:
    """The arguments of the run for one forced length."""

    def filled(words: str) -> str:
        return words.replace("LENGTH", str(length))

    return argparse.Namespace(
        **{
            **vars(args),
            "data": filled(args.data),
            "system": [(name, filled(flags)) for name, flags in args.system],
            "teacher": args.teacher and filled(args.teacher),
            "sentences": args.sentences or join.enough(length),
            "forced_length": length,
        }
    )


def command_line(entrant: Entrant, args: argparse.Namespace) -> List[str]:
    """The arguments of fairseq-generate: the system's own flags win, but no sentence may be dropped."""
    langs = {"--source-lang": args.source_lang, "--target-lang": args.target_lang}
    first = [word for flag, lang in langs.items() if lang for word in (flag, lang)]
    batch = ["--batch-size", str(args.batch_size)]
    return [args.data, *first, *batch, *shlex.split(entrant.flags), "--required-batch-size-multiple", "1"]


def plan_of(args: argparse.Namespace, size: int) -> runs.Plan:
    """What is timed of ``size`` sentences."""
    sentences = runs.sample(size, args.sentences or 200, args.sample_seed)
    if args.batch_sizes and max(args.batch_sizes) > len(sentences):
        raise ToolError(
            f"--batch-sizes {max(args.batch_sizes)}: only {len(sentences)} sentences are timed (--sentences)"
        )
    return runs.Plan(sentences, args.repeats, tuple(sorted(set(args.batch_sizes))), args.competitor)


def measured(args: argparse.Namespace, argv: Sequence[str]) -> List[Row]:
    """The rows of the run, which have been put into --output."""
    chosen = entrants.entrants_of(args.system, args.teacher)
    if args.competitor and args.competitor not in [entrant.id for entrant in chosen]:
        raise ToolError(f"--competitor {args.competitor}: no system of this run")
    simulated = [entrant.id for entrant in chosen if entrant.simulated is not None]
    if args.reference and simulated:
        raise ToolError(f"{simulated[0]}: --simulate-acceptance is for --forced-length alone: its words mean nothing")
    references = files.read_lines(args.reference, clean=True) if args.reference else None
    noisy = is_noisy(2.0, args.allow_noise)
    hypotheses: List[List[str]] = []
    with ExitStack() as stack:
        workers: List[Worker] = []
        for entrant in chosen:
            workers.append(Worker(entrant, command_line(entrant, args), args.threads))
            stack.callback(workers[-1].close)
        for worker in workers:
            worker.facts = worker.answer()
        size = len(workers[0].facts["source_lengths"])
        if references is not None and len(references) != size:
            raise ToolError(f"{args.reference} has {len(references)} lines for {size} sentences")
        plan = plan_of(args, size)
        runs.check_agreement(workers, plan.sentences if references is None else None)
        common = {**runs.common_facts(workers, argv), "threads": args.threads, "forced_length": args.forced_length}
        if references is None:
            rows = runs.unscored(workers, common, args.forced_length)
        else:
            rows, hypotheses = runs.measure_quality(workers, common, references)
        runs.add_times(rows, workers, plan, noisy)
        runs.write(args.output, args.hypotheses or args.output.parent / "hypotheses", rows, hypotheses)
    return rows


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    os.environ.update(OMP_NUM_THREADS=str(args.threads), MKL_NUM_THREADS=str(args.threads))
    try:
        each = [at_length(args, length) for length in args.forced_length or ()] or [args]
        rows = [row for one in each for row in measured(one, argv)]
    except OSError as error:
        raise ToolError(str(error)) from None
    print(tables.table(rows))
