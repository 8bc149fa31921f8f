"""A toy corpus, its binarised data and two trained models, made once a session, whatever the number of workers.

The language: up to eight words, to be said in reverse order and each in its translation.
"""

import fcntl
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any, Callable, List, Tuple

import pytest
from fairseq.data import Dictionary, indexed_dataset

from nar_plugin.compat import parallel_digest
from tests.end_to_end.programs import PLUGIN, STOCK, TASK, succeed

SOURCE_WORDS = [a + b for a in ("ba", "de", "ki", "lo", "mu") for b in ("na", "ret", "sil", "tom")]
TARGET_WORDS = [b + "-" + a for a in ("AB", "ED", "IK", "OL", "UM") for b in ("an", "ter", "lis", "mot")]
TRANSLATION = dict(zip(SOURCE_WORDS, TARGET_WORDS, strict=True))
SIZES = {"train": 2000, "valid": 50, "test": 60, "nine": 9}
LONGEST = 64
ADAM = ("--optimizer", "adam", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "100", "--lr", "3e-3")
QUIET = ("--no-progress-bar", "--disable-validation", "--no-epoch-checkpoints", "--num-workers", "0")
LIMITS = ("--max-source-positions", LONGEST, "--max-target-positions", LONGEST)
TINY_TRANSFORMER = (
    *("--arch", "transformer", "--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 32),
    *("--decoder-embed-dim", 32, "--encoder-ffn-embed-dim", 64, "--decoder-ffn-embed-dim", 64),
    *("--encoder-attention-heads", 2, "--decoder-attention-heads", 2, "--dropout", 0.0),
)
CRITERIONS = {
    "blockwise_transformer": "blockwise_cross_entropy",
    "ctc": "alignment",
    "fertility_nat": "token_length",
    "iterative_refinement": "token_length",
    "lanmt_continuous": "elbo_length",
    "lanmt_refiner": "score_matching",
    "latent_transformer": "elbo_length",
    "mask_predict": "token_length",
}
"""Every architecture of ours, and what trains it."""
STUDENT = ("--arch", "mask_predict_tiny", "--criterion", "token_length")


def toy_pairs(count: int, seed: int) -> List[Tuple[str, str]]:
    """``count`` sentence pairs of the toy language."""
    draw = random.Random(seed)
    sources = [draw.choices(SOURCE_WORDS, k=draw.randint(1, 8)) for _ in range(count)]
    return [(" ".join(words), " ".join(TRANSLATION[word] for word in reversed(words))) for words in sources]


def write_pairs(prefix: Path, pairs: List[Tuple[str, str]]) -> None:
    for side, language in enumerate(("src", "tgt")):
        Path(f"{prefix}.{language}").write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Path]:
    """``once(name, make)``: the folder ``name``, filled by ``make`` in whichever worker comes first."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # what all workers of the session share

    def folder_of(name: str, make: Callable[[Path], Any]) -> Path:
        folder = base / name
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                unfinished = base / f"{name}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return folder_of


@pytest.fixture(scope="session")
def corpus(once: Any) -> Path:
    """Plain text: ``train``, ``valid``, ``test`` and ``nine``, each ``.src`` and ``.tgt``."""

    def make(folder: Path) -> None:
        for seed, (split, count) in enumerate(SIZES.items()):
            write_pairs(folder / split, toy_pairs(count, seed))

    return once("corpus", make)


def preprocess(corpus: Path, folder: Path, *more: Any) -> None:
    succeed(
        *("fairseq-preprocess", "--user-dir", PLUGIN, "--source-lang", "src", "--target-lang", "tgt"),
        *("--trainpref", corpus / "train", "--validpref", corpus / "valid", "--testpref"),
        *(f"{corpus / 'test'},{corpus / 'nine'}", "--destdir", folder, "--workers", 1, *more),
    )


def training_set(data: Path, folder: Path, count: int, seed: int) -> None:
    """Binarise ``count`` toy pairs for training alone, with the dictionaries of ``data``."""
    write_pairs(folder / "train", toy_pairs(count, seed))
    files = ("--trainpref", folder / "train", "--destdir", folder, "--source-lang", "src", "--target-lang", "tgt")
    dictionaries = ("--srcdict", data / "dict.src.txt", "--tgtdict", data / "dict.tgt.txt")
    succeed("fairseq-preprocess", "--user-dir", PLUGIN, *files, *dictionaries)


def write_word_counts(data: Path, folder: Path) -> None:
    """Files of ``--word-counts`` for the binarised splits that there are: in the toy language a word is always one."""
    dictionaries = [Dictionary.load(str(data / f"dict.{side}.txt")) for side in ("src", "tgt")]
    for split in ("train", "valid"):
        prefixes = [str(data / f"{split}.src-tgt.{side}") for side in ("src", "tgt")]
        if not indexed_dataset.dataset_exists(prefixes[0], "mmap"):
            continue
        sides = [indexed_dataset.make_dataset(prefix, "mmap") for prefix in prefixes]
        sizes = [side.sizes for side in sides]
        text = parallel_digest(dictionaries, sizes, lambda i, sides=sides: [side[i].tolist() for side in sides])
        lines = [" ".join("1" * (int(size) - 1)) for size in sides[0].sizes]
        head = json.dumps({"text": text, "lines": len(lines)})
        (folder / split).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def data(corpus: Path, once: Any) -> Path:
    """Binarised with a dictionary a side; ``test`` has 60 sentences, ``test1`` has 9."""
    return once("data", lambda folder: preprocess(corpus, folder))


@pytest.fixture(scope="session")
def joint_data(corpus: Path, once: Any) -> Path:
    """Binarised with one dictionary for both sides."""
    return once("joint_data", lambda folder: preprocess(corpus, folder, "--joined-dictionary"))


@pytest.fixture(scope="session")
def student(data: Path, once: Any) -> Path:
    """The checkpoint of a small mask-predict model that has learnt the toy language."""
    arguments = (data, *TASK, *STUDENT, *LIMITS, *ADAM, *QUIET, "--max-tokens", 2000, "--max-update", 400)
    folder = once("student", lambda folder: succeed("fairseq-train", *arguments, "--save-dir", folder))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="session")
def stands_on(data: Path, teacher: Path, once: Any) -> Callable[..., Tuple[Any, ...]]:
    """Flags of fairseq-train for an architecture that stands on another's trained model, or on an alignment of the text
    that is trained on; most do not."""

    def flags(name: str, trained_on: Path = data) -> Tuple[Any, ...]:
        if name == "fertility_nat":
            folder = once(f"counts_of_{trained_on.name}", lambda folder: write_word_counts(trained_on, folder))
            return ("--word-counts", folder)
        if name == "blockwise_transformer":
            return ("--base-checkpoint", teacher)
        if name != "lanmt_refiner":
            return ()
        arch = ("--arch", "lanmt_continuous_tiny", "--criterion", CRITERIONS["lanmt_continuous"])
        arguments = (data, *TASK, *arch, *LIMITS, *ADAM, *QUIET, "--max-tokens", 500, "--max-update", 300)
        folder = once("latent", lambda folder: succeed("fairseq-train", *arguments, "--save-dir", folder))
        return ("--latent-model", folder / "checkpoint_last.pt")

    return flags


@pytest.fixture(scope="session")
def teacher(data: Path, once: Any) -> Path:
    """The checkpoint of a small transformer trained by fairseq alone, without the plugin, its options a Namespace."""
    objective = ("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", 0.1)
    arguments = (data, *STOCK, *TINY_TRANSFORMER, *objective, *ADAM, *QUIET, "--max-tokens", 2000, "--max-update", 400)
    folder = once("teacher", lambda folder: succeed("fairseq-train", *arguments, "--save-dir", folder))
    return folder / "checkpoint_last.pt"
