"""``nar`` as a user calls it, with and without a process of its own, and sentences of one length."""

import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from nar_tools import cli
from tests.end_to_end.programs import Outcome, console, succeed

VERB = (sys.executable, "-m", "nar_tools")
FORCED = "--min-len {0} --max-len-a 0 --max-len-b {0}"
"""Flags of fairseq's own search that force a length."""
Nar = Callable[..., Outcome]


@pytest.fixture
def nar(capsys: pytest.CaptureFixture[str]) -> Nar:
    """``nar("verb", ...)``: how it ends and what it says."""

    def run(*words: Any) -> Outcome:
        capsys.readouterr()
        try:
            cli.main([str(word) for word in words])
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run


@pytest.fixture
def joined(corpus: Path, data: Path, tmp_path: Path) -> Path:
    """Four pairs of 7 tokens a side."""
    texts = [tmp_path / f"joined.{side}" for side in ("src", "tgt")]
    inputs = [corpus / f"test.{side}" for side in ("src", "tgt")]
    counts = ("--length", 7, "--lines", 4)
    assert console([*VERB, "join", "--input", *inputs, "--output", *texts, *counts]).code == 0
    dictionary = ("--srcdict", data / "dict.src.txt", "--tgtdict", data / "dict.tgt.txt")
    langs = ("--source-lang", "src", "--target-lang", "tgt")
    succeed("fairseq-preprocess", *langs, "--testpref", tmp_path / "joined", *dictionary, "--destdir", tmp_path / "bin")
    return tmp_path / "bin"
