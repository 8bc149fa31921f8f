"""Students that come with a recipe: whole, small enough for a repository, and translating as when they were packed."""

import json
import shutil
from pathlib import Path
from typing import Dict, List

import pytest
import sacrebleu

from tests.end_to_end.programs import ROOT, succeed, tagged
from tests.tools.conftest import Nar

TEACHER, STUDENTS = (ROOT / "examples" / "multi30k" / name for name in ("teacher", "students"))
NAMES = sorted(path.stem for path in STUDENTS.glob("*.pt"))
LARGEST = 10_000_000


def lines(path: Path) -> List[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def dictionaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    for lang in ("de", "en"):
        shutil.copy(TEACHER / "dict.txt", folder / f"dict.{lang}.txt")
    return folder


def test_the_folder_is_whole_and_every_file_small(nar: Nar) -> None:
    assert NAMES and nar("release", "check", STUDENTS).code == 0
    manifest = json.loads((STUDENTS / "manifest.json").read_text())
    assert set(manifest["files"]) == {path.name for path in STUDENTS.iterdir()} - {"manifest.json"}
    assert max(manifest["bytes"].values()) <= LARGEST
    commands: Dict[str, int] = {name: sum(f"/{name}.pt" in line for line in manifest["commands"]) for name in NAMES}
    assert all(commands.values()), "a model of which nobody knows how it was made"


@pytest.mark.parametrize("name", NAMES)
def test_a_student_translates_as_when_it_was_packed(name: str, dictionaries: Path) -> None:
    """Fifty captions, with the default flags; another processor may round otherwise and change a word."""
    flags = ["--user-dir", "nar_plugin", "--task", "translation_nar", "--source-lang", "de", "--target-lang", "en"]
    text = ["--tokenizer", "moses", "--bpe", "subword_nmt", "--bpe-codes", TEACHER / "codes"]
    model = ["--path", STUDENTS / f"{name}.pt", "--cpu", "--buffer-size", 50, "--batch-size", 50]
    source = (STUDENTS / "sample.de").read_bytes()
    outcome = succeed("fairseq-interactive", dictionaries, *flags, *text, *model, stdin=source)
    found = [fields[-1] for _, fields in sorted(tagged(outcome, "D"))]
    packed, references = lines(STUDENTS / f"{name}.txt"), lines(STUDENTS / "sample.en")
    assert len(found) == len(packed) == len(references) == 50
    assert sum(one == other for one, other in zip(found, packed)) >= 45
    assert sacrebleu.corpus_bleu(found, [references]).score > 25
