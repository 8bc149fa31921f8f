"""Runs fairseq-train so that it can be killed and called again, with short lines of progress on the screen.

Example:

    nar train student --log student.log -- fairseq-train data --save-dir student --arch mask_predict_small \\
        --criterion token_length --optimizer adam --lr 2e-3 --max-tokens 1024 --max-epoch 20 --log-format simple

Everything that fairseq-train prints goes to the log. Called again with the same command, the training goes on from its
last checkpoint. With other flags, other data or another model to stand on it is another training: what is in --save-dir
is put aside as NAME.before, and it begins from nothing. Another end (--max-update, --max-epoch), another display
(--log-interval), other devices and another split of the same --tokens make no other training. The loss is shown as the
criterion logs it, in bits.
"""

import argparse
import os
from pathlib import Path
from typing import Sequence

from .. import cli
from ..errors import ToolError
from ..jobs import training


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.parser("train", __doc__)
    parser.add_argument("name", help="of the training, which its lines begin with")
    parser.add_argument("--log", type=Path, required=True, help="file to which everything is added")
    parser.add_argument(
        "--tokens", default="", help="target tokens an update, where the flags only say how to split them"
    )
    parser.add_argument("--machine", type=int, default=0, help="which of several: only the first, 0, keeps the folder")
    is_split = "--" in argv or not argv or {"-h", "--help"} & set(argv)
    if not is_split:
        raise ToolError("put -- before the command: nar train NAME --log FILE -- fairseq-train DATA --save-dir DIR ...")
    at = list(argv).index("--") if "--" in argv else len(argv)
    args = parser.parse_args(argv[:at])
    args.command = list(argv[at + 1 :])
    if len(args.command) < 2 or not training.option(args.command, "--save-dir"):
        raise ToolError("say the command after --: fairseq-train DATA --save-dir DIR ...")
    return args


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    try:
        if args.machine == 0:
            keep(args)
        else:
            log = args.log.with_suffix(f".{args.machine}.log")
            ended(args.name, training.follow(args.command, log, None, []), log)
    except OSError as error:
        raise ToolError(f"{error.filename}: {error.strerror}") from None


def keep(args: argparse.Namespace) -> None:
    """The training in its folder, where another of its kind goes on."""
    folder = Path(str(training.option(args.command, "--save-dir")))
    at = next((i for i, word in enumerate(args.command) if Path(word).name == "fairseq-train"), 0)
    told = training.identity(args.command[at:], args.tokens)
    lock = training.begin(folder, args.log, told)
    try:
        whole = "\n".join([told, *args.command])
        if training.is_done(folder, whole):
            print(f"[{args.name}] done before")
            return
        state = "goes on from its last checkpoint" if (folder / "checkpoint_last.pt").exists() else "begins"
        print(f"[{args.name}] {state}; all that it prints is in {args.log}", flush=True)
        progress = training.Progress(args.name, args.command)
        ended(args.name, training.follow(args.command, args.log, progress, [lock]), args.log)
        if progress.is_done:
            (folder / "done").write_text(whole, encoding="utf-8")
    finally:
        os.close(lock)


def ended(name: str, status: int, log: Path) -> None:
    if status:
        raise ToolError(f"training {name} failed with status {status}; see {log}")
