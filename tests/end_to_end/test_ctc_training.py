"""Trainings by alignments in fairseq's programs: what does not fit is said once an epoch; any line is answered."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ADAM, LIMITS, QUIET, toy_pairs, write_pairs
from tests.end_to_end.programs import PLUGIN, TASK, Outcome, complains, logged, program, succeed, texts

CTC = ("--arch", "ctc_tiny", "--criterion", "alignment")
JSON = ("--log-format", "json", "--log-interval", 2)
LINE = "do not fit on --upsample"


@pytest.fixture(scope="module")
def ten_misfits(data: Path, once: Any) -> Path:
    """A training set of 50 pairs, of which ten targets are longer than twice their source, three of them by repeats."""

    def make(folder: Path) -> None:
        pairs = toy_pairs(40, seed=21)
        long = [(source, " ".join([target] * 5)) for source, target in toy_pairs(7, seed=22)]
        repeats = [
            ("bana deret", "an-AB an-AB an-AB an-AB"),
            ("bana", " ".join(["an-AB"] * 3)),
            ("deret", "ter-ED " * 4),
        ]
        write_pairs(folder / "train", [*pairs[:20], *long, *repeats, *pairs[20:]])
        files = ("--trainpref", folder / "train", "--destdir", folder, "--source-lang", "src", "--target-lang", "tgt")
        dictionaries = ("--srcdict", data / "dict.src.txt", "--tgtdict", data / "dict.tgt.txt")
        succeed("fairseq-preprocess", "--user-dir", PLUGIN, *files, *dictionaries)

    return once("ten_misfits", make)


def trained(data: Path, folder: Path, *more: Any) -> Outcome:
    flags = (*TASK, *CTC, *LIMITS, *ADAM, *QUIET, *JSON, "--batch-size", 8, "--save-dir", folder)
    return succeed("fairseq-train", data, *flags, *more)


def said(outcome: Outcome) -> list[str]:
    return [line.split(" | ")[-1] for line in outcome.lines if LINE in line]


@pytest.mark.parametrize("frequency", [1, 3])
def test_an_epoch_counts_what_does_not_fit_and_says_so_once(ten_misfits: Path, tmp_path: Path, frequency: int) -> None:
    """CTC-5: ten of fifty, in each of two epochs; what is needed is said; where all fit there is no line."""
    outcome = trained(ten_misfits, tmp_path / "two", "--max-epoch", 2, "--update-freq", frequency)
    assert [float(epoch["train_misfits"]) for epoch in logged(outcome, "train")] == [10, 10]
    lines = said(outcome)
    assert len(lines) == 2 and all(line.startswith("10 of 50 targets do not fit on --upsample 2") for line in lines)
    needed = int(lines[0].split("--upsample ")[-1].split()[0])
    wide = trained(ten_misfits, tmp_path / "wide", "--max-epoch", 1, "--upsample", needed)
    assert float(logged(wide, "train")[0]["train_misfits"]) == 0 and not said(wide)
    narrow = trained(ten_misfits, tmp_path / "narrow", "--max-epoch", 1, "--upsample", needed - 1)
    assert float(logged(narrow, "train")[0]["train_misfits"]) > 0 and len(said(narrow)) == 1


def test_a_training_that_goes_on_within_an_epoch_counts_all_of_it(ten_misfits: Path, tmp_path: Path) -> None:
    """CTC-5."""
    assert not said(trained(ten_misfits, tmp_path, "--max-update", 3))
    outcome = trained(ten_misfits, tmp_path, "--max-epoch", 1)
    assert [line[:16] for line in said(outcome)] == ["10 of 50 targets"]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--upsample", 0), "--upsample 0: it takes 1 or more"),
        (("--glance", "0.5", "--max-update", 1), "--glance 0.5: it takes START:END"),
        (("--glance", "0.5:0.1"), "--glance needs --max-update"),
        (("--label-smoothing", 0.1, "--max-update", 1), "--label-smoothing 0.1: --criterion alignment has none"),
        (
            ("--decoder-layers", 0, "--freeze", "encoder", "--max-update", 1),
            "--freeze encoder: beside --decoder-layers 0",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(ten_misfits: Path, tmp_path: Path, flags: Any, line: str) -> None:
    options = (*TASK, *CTC, *LIMITS, *ADAM, *QUIET, "--batch-size", 8, "--save-dir", tmp_path)
    complains(program("fairseq-train", ten_misfits, *options, *flags), line)


def test_any_line_is_answered_in_its_place(data: Path, ten_misfits: Path, tmp_path: Path) -> None:
    """CTC-16: an empty one, one of unknown words, one of 2,000 tokens; and a decode refuses what it would ignore."""
    trained(
        ten_misfits, tmp_path, "--max-update", 20, "--glance", "0.5:0.1", "--deep-supervision", "--decoder-layers", 2
    )
    lines = [b"bana deret", b"", b"xyzzy", b" ".join([b"bana"] * 2000), b"deret"]
    command = ("fairseq-interactive", data, *TASK, "--path", tmp_path / "checkpoint_last.pt", "--buffer-size", 5)
    for flags in ((), ("--iter-decode-with-beam", 3)):
        found = texts(succeed(*command, "--batch-size", 5, *flags, stdin=b"\n".join(lines) + b"\n"))
        assert len(found) == 5 and found[1] == ""
    for flags in (("--iter-decode-max-iter", 4), ("--gold-target-len",), ("--nbest", 2)):
        complains(program(*command, *flags, stdin=b"bana\n"), flags[0])
