"""The quickstart's corpus: the same bytes everywhere, right references, no source in two splits."""

import hashlib
import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Set

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "quickstart" / "make_corpus.py"
FILES = [f"{split}.{side}" for split in ("train", "valid", "test") for side in ("en", "de")]
SMALL = {"train": 400, "valid": 30, "test": 40}


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_corpus", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_corpus"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


make_corpus = loaded()


def run(out: Path, *args: Any, seed: str = "0") -> subprocess.CompletedProcess:
    """Start the script as a user does; ``seed``: of the hashes of strings."""
    words = [str(arg) for arg in ("--out", out, *args)]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words], env=environment, capture_output=True, text=True, timeout=120
    )


def sizes(train: int, valid: int, test: int) -> List[Any]:
    return ["--train", train, "--valid", valid, "--test", test]


def lines(path: Path) -> List[str]:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text[:-1].split("\n")


def about(folder: Path) -> Dict[str, Any]:
    return json.loads((folder / "corpus.json").read_text(encoding="utf-8"))


def contents(folder: Path) -> Dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of the quickstart, all as it is if nothing is said."""
    folder = tmp_path_factory.mktemp("corpus") / "new" / "raw"
    done = run(folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def corpus() -> Dict[str, List[Any]]:
    """The pairs of the default corpus with all that is right for each source."""
    return make_corpus.make_corpus(dict(make_corpus.SPLITS), 1)


def test_the_corpus_does_not_depend_on_the_hashes_of_strings(full: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "again", seed="12345").returncode == 0
    assert contents(tmp_path / "again") == contents(full)
    assert sorted(contents(full)) == sorted([*FILES, "corpus.json"])


def test_another_seed_gives_another_corpus(tmp_path: Path) -> None:
    for seed in (1, 2):
        assert run(tmp_path / str(seed), *sizes(**SMALL), "--seed", seed).returncode == 0
    first, second = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert all(first[name] != second[name] for name in FILES)
    assert about(tmp_path / "2")["seed"] == 2


def test_the_corpus_is_as_large_and_as_ambiguous_as_promised(full: Path) -> None:
    facts = about(full)
    assert facts["pairs"]["train"] >= 20_000 and facts["pairs"]["test"] >= 500
    assert facts["share_ambiguous"] >= 0.30
    assert facts["pairs"] == {split: len(lines(full / f"{split}.de")) for split in facts["pairs"]}
    assert facts["train_sources"] == len(set(lines(full / "train.en")))


def test_training_shows_many_sources_with_several_targets(full: Path) -> None:
    seen: Dict[str, Set[str]] = {}
    for source, target in zip(lines(full / "train.en"), lines(full / "train.de"), strict=True):
        seen.setdefault(source, set()).add(target)
    several = sum(len(targets) > 1 for targets in seen.values())
    assert about(full)["share_seen_with_several_targets"] == round(several / len(seen), 4) > 0.1


def test_the_hashes_are_those_of_the_files(full: Path) -> None:
    assert about(full)["sha256"] == {name: hashlib.sha256((full / name).read_bytes()).hexdigest() for name in FILES}


def test_no_source_stands_in_two_splits(full: Path) -> None:
    sources = {split: lines(full / f"{split}.en") for split in ("train", "valid", "test")}
    held_out = sources["valid"] + sources["test"]
    assert len(set(held_out)) == len(held_out) == 900
    assert not set(held_out) & set(sources["train"])


def test_every_reference_is_a_right_target_of_its_source(full: Path, corpus: Dict[str, List[Any]]) -> None:
    for split, pairs in corpus.items():
        assert lines(full / f"{split}.en") == [pair.entry.source for pair in pairs]
        assert lines(full / f"{split}.de") == [pair.target for pair in pairs]
        assert all(pair.target in pair.entry.targets for pair in pairs)


def test_shares_sum_to_one_and_the_best_target_is_the_only_best(corpus: Dict[str, List[Any]]) -> None:
    for pair in corpus["valid"] + corpus["test"]:
        shares = sorted(pair.entry.targets.values(), reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-9)
        assert len(shares) == 1 or shares[0] > 1.2 * shares[1]


def test_the_targets_of_one_source_are_drawn_by_their_shares(corpus: Dict[str, List[Any]]) -> None:
    pair = max(corpus["test"], key=lambda pair: len(pair.entry.targets))
    draw, counts = random.Random(5), dict.fromkeys(pair.entry.targets, 0)
    for _ in range(20_000):
        counts[make_corpus.draw(pair.entry.targets, draw)] += 1
    assert len(counts) > 5
    for text, share in pair.entry.targets.items():
        assert counts[text] / 20_000 == pytest.approx(share, abs=0.015)


def test_a_source_that_repeats_in_training_has_another_target_there(corpus: Dict[str, List[Any]]) -> None:
    pairs = [(pair.entry.source, pair.target) for pair in corpus["train"]]
    assert len(set(pairs)) == len(pairs)
    assert len(pairs) - len({source for source, _ in pairs}) == int(0.12 * len(pairs))


@pytest.mark.parametrize(
    ("minutes", "spoken"),
    [
        (15 * 60 + 45, "Viertel vor vier"),
        (12 * 60 + 30, "halb eins"),
        (13 * 60, "ein Uhr"),
        (12 * 60 + 15, "Viertel nach zwölf"),
        (12 * 60 + 45, "Viertel vor eins"),
    ],
)
def test_a_quarter_of_an_hour_is_said_as_german_speakers_say_it(minutes: int, spoken: str) -> None:
    assert make_corpus.spoken_time(make_corpus.datetime.time(*divmod(minutes, 60))) == spoken


def test_lines_are_plain_text(full: Path) -> None:
    for name in FILES:
        text = (full / name).read_text(encoding="utf-8")
        assert len(text.splitlines()) == text.count("\n") and "\u00a0" not in text and "\u202f" not in text
        assert all(line == " ".join(line.split()) != "" for line in lines(full / name))


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 1), (9, 2, 3), (50, 5, 200)])
def test_a_small_corpus_has_the_size_asked_for(size: Any, tmp_path: Path) -> None:
    done = run(tmp_path / "out", *sizes(*size))
    assert done.returncode == 0, done.stderr
    assert [len(lines(tmp_path / "out" / f"{split}.en")) for split in SMALL] == list(size)
    assert about(tmp_path / "out")["pairs"] == dict(zip(SMALL, size, strict=True))


@pytest.mark.parametrize("seed", range(2, 7))
def test_no_corpus_of_one_pair_is_refused_by_chance(seed: int, tmp_path: Path) -> None:
    done = run(tmp_path / "out", *sizes(1, 1, 1), "--seed", seed)
    assert done.returncode == 0, done.stderr


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path / "out", "--valid", 0)
    assert done.returncode == 2 and "every split needs at least one pair" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["a file", "below a file", "below /proc"])
def test_a_folder_that_cannot_be_written_ends_in_one_line(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine\n")
    out = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "out", "below /proc": Path("/proc/out")}[
        place
    ]
    done = run(out, *sizes(**SMALL))
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and str(out) in done.stderr
    assert (tmp_path / "file").read_text() == "mine\n"


def test_a_run_that_dies_leaves_no_corpus_that_seems_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = make_corpus.make_corpus(SMALL, 1)
    make_corpus.write_corpus(tmp_path, corpus, {})
    assert (tmp_path / "corpus.json").exists()
    whole, write = contents(tmp_path), make_corpus.write_whole

    def die_at_the_fourth(path: Path, text: str) -> str:
        if path.name == "valid.de":
            raise KeyboardInterrupt
        return write(path, text)

    monkeypatch.setattr(make_corpus, "write_whole", die_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        make_corpus.write_corpus(tmp_path, corpus, {})
    assert "corpus.json" not in contents(tmp_path)
    monkeypatch.undo()
    make_corpus.write_corpus(tmp_path, corpus, {})
    assert contents(tmp_path) == whole


def test_a_broken_promise_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = make_corpus.make_corpus(SMALL, 1)
    about = make_corpus.facts(corpus)
    make_corpus.check(corpus, about, SMALL)
    corpus["test"].append(corpus["train"][0])
    with pytest.raises(SystemExit, match=r"^make_corpus.py: does not hold: .*no source is in two splits"):
        make_corpus.check(corpus, about, SMALL)
