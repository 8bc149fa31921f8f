"""Folders of data as people have them: without a sentence, of several sets, with another dictionary."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.programs import PLUGIN, succeed

SPLITS = {"trainpref": "train", "validpref": "valid", "testpref": "test"}


@pytest.fixture(scope="session")
def empty(data: Path, once: Any) -> Path:
    """As ``data``, but no split except ``test1`` has a sentence."""

    def make(folder: Path) -> None:
        shutil.copytree(data, folder, dirs_exist_ok=True)
        for language in ("src", "tgt"):
            Path(folder, f"none.{language}").write_text("")
        for flag, split in SPLITS.items():
            made = folder / f"made-{split}"
            languages = ("--source-lang", "src", "--target-lang", "tgt", f"--{flag}", folder / "none")
            dictionaries = ("--srcdict", data / "dict.src.txt", "--tgtdict", data / "dict.tgt.txt")
            succeed("fairseq-preprocess", "--user-dir", PLUGIN, *languages, *dictionaries, "--destdir", made)
            for file in made.glob(f"{split}.*"):
                shutil.copy(file, folder)

    return once("empty", make)


@pytest.fixture(scope="session")
def several(data: Path, once: Any) -> Path:
    """As ``data``, with ``train1`` and ``valid1`` beside ``train`` and ``valid``."""

    def make(folder: Path) -> None:
        shutil.copytree(data, folder, dirs_exist_ok=True)
        for split in ("train", "valid"):
            for file in folder.glob(f"{split}.*"):
                shutil.copy(file, folder / file.name.replace(split, split + "1", 1))

    return once("several", make)


@pytest.fixture(scope="session")
def reordered(data: Path, once: Any) -> Path:
    """As ``data``, but the target dictionary has its words in another order."""

    def make(folder: Path) -> None:
        shutil.copytree(data, folder, dirs_exist_ok=True)
        dictionary = folder / "dict.tgt.txt"
        dictionary.write_text("".join(reversed(dictionary.read_text().splitlines(keepends=True))))

    return once("reordered", make)
