"""Shortlists: that an alignment finds what goes with what, and that both engines read what is written.

Word counts: that every target word is one source word's, and that a training reads what is written.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from fairseq.data import Dictionary
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from nar_plugin.methods.symbols import Symbols
from nar_plugin.tasks import shortlists
from nar_plugin.tasks.word_counts import WordCounts
from nar_tools.text import alignment
from tests.conftest import TRANSLATION
from tests.end_to_end.programs import TASK, Outcome, succeed, texts
from tests.tools.conftest import Nar

ALIGNED = pytest.mark.skipif(importlib.util.find_spec("thot") is None, reason="pip install sil-thot")


def dictionaries(data: Path) -> Tuple[Path, Path]:
    return data / "dict.src.txt", data / "dict.tgt.txt"


def written(path: Path) -> Tuple[Dict[str, Any], List[str], Dict[str, List[str]]]:
    """Of a file the first line, the words of every sentence, and those of each source word."""
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    words = {word: some.split(" ") if some else [] for word, some in (line.split("\t") for line in lines)}
    return json.loads(head), words.pop(""), words


def align(nar: Nar, data: Path, output: Path, *more: Any) -> Outcome:
    return nar("align", "--dict", *dictionaries(data), "--output", output, *more)


def refused(done: Outcome, *words: str) -> None:
    assert done.code == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr


@pytest.fixture
def text(corpus: Path) -> Tuple[Any, ...]:
    return ("--input", corpus / "train.src", corpus / "train.tgt")


@ALIGNED
def test_every_word_of_the_toy_language_is_first_translated_as_it_is(
    nar: Nar, data: Path, text: Any, tmp_path: Path
) -> None:
    done = align(nar, data, tmp_path / "list", *text, "--frequent", 0, "--per-word", 3)
    assert done.code == 0 and done.stderr.endswith(": 20 source words, 3.0 words each, 2 for all\n"), done.stderr
    head, always, words = written(tmp_path / "list")
    assert always == ["</s>", "<unk>"] and head["lines"] == 21
    assert {word: some[0] for word, some in words.items()} == TRANSLATION


@ALIGNED
def test_improbable_translations_and_those_beyond_the_number_are_left_out(
    nar: Nar, data: Path, text: Any, tmp_path: Path
) -> None:
    assert align(nar, data, tmp_path / "sure", *text, "--frequent", 0, "--floor", 0.5).code == 0
    assert written(tmp_path / "sure")[2] == {word: [other] for word, other in TRANSLATION.items()}
    assert align(nar, data, tmp_path / "few", *text, "--frequent", 4, "--per-word", 2, "--lines", 900).code == 0
    _, always, words = written(tmp_path / "few")
    assert len(always) == 6 and max(map(len, words.values())) == 2
    assert not set(always) & {target for some in words.values() for target in some}, "each word is said once"


@ALIGNED
def test_words_that_no_dictionary_has_are_the_unknown_word(nar: Nar, data: Path, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("bana strange\n\nbana\n")
    (tmp_path / "t").write_text("an-AB </s> odd <pad>\nan-AB\nan-AB\n")
    assert align(nar, data, tmp_path / "list", "--input", tmp_path / "s", tmp_path / "t", "--frequent", 0).code == 0
    _, always, words = written(tmp_path / "list")
    assert always == ["</s>", "<unk>"] and words == {"<unk>": ["an-AB"], "bana": ["an-AB"]}


def test_random_lists_are_those_of_their_seed(nar: Nar, data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert align(nar, data, tmp_path / name, "--random", seed, "--per-word", 7, "--frequent", 3).code == 0
    _, always, words = written(tmp_path / "a")
    assert (
        len(always) == 5 and set(words) == set(TRANSLATION) and {len(some) for some in words.values()} <= {4, 5, 6, 7}
    )
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() != (tmp_path / "c").read_text()


def test_what_is_written_is_what_a_decode_reads(nar: Nar, data: Path, tmp_path: Path) -> None:
    assert align(nar, data, tmp_path / "list", "--random", 3, "--per-word", 4, "--frequent", 2).code == 0
    source, target = (Dictionary.load(str(path)) for path in dictionaries(data))
    symbols = Symbols(target.bos(), target.pad(), target.eos(), target.unk(), len(target))
    lexicon = shortlists.read(str(tmp_path / "list"), source, target, symbols)
    _, always, words = written(tmp_path / "list")
    for word, some in words.items():
        found = lexicon.shortlist(source.encode_line(word, add_if_not_exist=False).long()[None])
        spelled = {target.symbols[i] for i in found.words[found.is_allowed[0]].tolist()}
        assert spelled == {*always, *some}


@ALIGNED
@pytest.mark.parametrize("engine", ["eager", "int8"])
def test_a_trained_model_is_at_least_as_good_with_a_right_shortlist(
    engine: str, nar: Nar, data: Path, corpus: Path, text: Any, student: Path, tmp_path: Path
) -> None:
    assert align(nar, data, tmp_path / "list", *text, "--frequent", 0, "--per-word", 2).code == 0
    flags = (data, *TASK, "--path", student, "--gen-subset", "test", "--cpu", "--engine", engine)
    references = (corpus / "test.tgt").read_text().splitlines()

    def right(*more: Any) -> int:
        return sum(map(str.__eq__, texts(succeed("fairseq-generate", *flags, *more)), references))

    assert right("--shortlist", tmp_path / "list") >= right() > len(references) // 2


def test_ctranslate2_reads_the_same_lists(nar: Nar, data: Path, teacher: Path, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    lists = ("--random", 5, "--per-word", 2, "--frequent", 2, "--vmap", tmp_path / "vmap.txt")
    assert align(nar, data, tmp_path / "list", *lists).code == 0
    converter = ctranslate2.converters.FairseqConverter(str(teacher), str(data), unsafe_deserialization=True)
    converter.convert(str(tmp_path / "model"), vmap=str(tmp_path / "vmap.txt"))
    _, always, words = written(tmp_path / "list")
    translator = ctranslate2.Translator(str(tmp_path / "model"), device="cpu")
    for word, some in list(words.items())[:5]:
        (result,) = translator.translate_batch([[word, "</s>"]], use_vmap=True, max_decoding_length=6)
        (whole,) = translator.translate_batch([[word, "</s>"]], max_decoding_length=6)
        assert set(result.hypotheses[0]) <= {*always, *some}
        assert whole.hypotheses[0] == [TRANSLATION[word]]


def test_without_the_library_it_says_what_to_install(
    nar: Nar, data: Path, text: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "thot", None)
    refused(align(nar, data, tmp_path / "list", *text), "nar align: aligning needs a library", "pip install sil-thot")
    assert not (tmp_path / "list").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--per-word", 0), ["--per-word and --lines need 1 or more"]),
        (("--frequent", -1), ["--frequent 0 or more"]),
        (("--floor", 1.5), ["--floor 1.5: it takes a number from 0 to 1"]),
    ],
)
def test_numbers_out_of_bounds_are_refused(more: Any, words: List[str], nar: Nar, data: Path, tmp_path: Path) -> None:
    refused(align(nar, data, tmp_path / "list", "--random", 1, *more), *words)


def test_texts_that_cannot_be_aligned_are_refused(nar: Nar, data: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("bana\n\n")
    (tmp_path / "t").write_text("\nan-AB\n")
    files = tmp_path / "s", tmp_path / "t"
    refused(align(nar, data, tmp_path / "list", "--input", *files), "there is no sentence to align")
    unequal = ("--input", corpus / "nine.src", corpus / "test.tgt")
    refused(align(nar, data, tmp_path / "list", *unequal), "9 lines of source, 60 of target")
    refused(align(nar, data, tmp_path / "list", "--input", tmp_path / "none", tmp_path / "t"), "cannot read", "none")
    for path in (tmp_path / "none", corpus / "nine.src"):
        lists = ("--output", tmp_path / "list", "--random", 1)
        refused(nar("align", "--dict", path, path, *lists), str(path), "no dictionary of fairseq-preprocess")
    assert not (tmp_path / "list").exists()


def counts_in(path: Path) -> List[List[int]]:
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(head)["lines"] == len(lines)
    return [[int(word) for word in line.split()] for line in lines]


@pytest.mark.parametrize(
    ("links", "owners"),
    [
        ([[0], [1], [1], [3]], [0, 1, 1, 3]),
        ([[0], [], [2], []], [0, 0, 2, 2]),
        ([[], [2]], [0, 2]),
        ([[0, 3], [1, 2], [0, 1, 2, 3]], [3, 1, 3]),
    ],
)
def test_every_target_word_belongs_to_one_source_word(links: List[List[int]], owners: List[int]) -> None:
    """FERT-4: without a link to its left neighbour's, with several to the most probable one, of equals the first."""
    rows = [[place in some for place in range(4)] for some in links]
    found = alignment.owners(rows, lambda i, j: {3: 0.5}.get(i, 0.1))
    assert found == owners and [found.count(place) for place in range(4)] == [owners.count(p) for p in range(4)]


@ALIGNED
def test_counts_add_up_to_the_target_and_a_training_reads_them(
    nar: Nar, data: Path, corpus: Path, text: Any, tmp_path: Path
) -> None:
    """FERT-4: of the text that the model learnt from, and of another that it did not."""
    held_out = ("--held-out", "valid", corpus / "valid.src", corpus / "valid.tgt")
    done = nar("align", "--dict", *dictionaries(data), *text, "--word-counts", tmp_path / "counts", *held_out)
    assert done.code == 0, done.stderr
    assert "2,000 sentences, 1.00 target words a source word" in done.stderr
    for split in ("train", "valid"):
        sides = [(corpus / f"{split}.{side}").read_text().splitlines() for side in ("src", "tgt")]
        found = counts_in(tmp_path / "counts" / split)
        assert [len(some) for some in found] == [len(line.split()) for line in sides[0]]
        assert [sum(some) for some in found] == [len(line.split()) for line in sides[1]]
    ones = [set(some) == {1} for some in counts_in(tmp_path / "counts" / "train")]
    assert sum(ones) > 0.5 * len(ones), "a word of the toy language is one word"
    counts = WordCounts(str(tmp_path / "counts"))
    for split in ("train", "valid"):
        task = TranslationTask.setup_task(
            TranslationConfig(
                data=str(data), source_lang="src", target_lang="tgt", dataset_impl="mmap", required_seq_len_multiple=1
            )
        )
        task.load_dataset(split)
        counts.load(split, task.dataset(split))


@ALIGNED
def test_words_that_are_repeated_and_left_out_are_counted(nar: Nar, data: Path, corpus: Path, tmp_path: Path) -> None:
    """FERT-4: in a language where one word is said twice and one not at all."""
    lines = (corpus / "train.src").read_text().splitlines()
    said = {"bana": [], "deret": ["twice", "twice+"]}
    targets = [[word for source in line.split() for word in said.get(source, [source + "!"])] for line in lines]
    (tmp_path / "s").write_text("".join(line + "\n" for line in lines))
    (tmp_path / "t").write_text("".join(" ".join(words) + "\n" for words in targets))
    words = sorted({word for some in targets for word in some})
    (tmp_path / "dict").write_text("".join(f"{word} 1\n" for word in words))
    sides = (data / "dict.src.txt", tmp_path / "dict")
    texts_of = ("--input", tmp_path / "s", tmp_path / "t")
    assert nar("align", "--dict", *sides, *texts_of, "--word-counts", tmp_path / "c").code == 0
    wanted = [[len(said.get(word, [word])) for word in line.split()] for line in lines]
    found = counts_in(tmp_path / "c" / "train")
    pairs = [(a, b) for one, two in zip(found, wanted) for a, b in zip(one, two)]
    assert sum(a == b for a, b in pairs) > 0.9 * len(pairs)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--random", 1), ["--output", "--word-counts"]),
        (("--random", 1, "--word-counts", "c"), ["--input, not --random"]),
        (("--random", 1, "--vmap", "v", "--word-counts", "c"), ["--vmap"]),
        (("--random", 1, "--output", "o", "--held-out", "valid", "a", "b"), ["--held-out is a text for --word-counts"]),
    ],
)
def test_what_would_make_nothing_is_refused(flags: Any, words: List[str], nar: Nar, data: Path) -> None:
    refused(nar("align", "--dict", *dictionaries(data), *flags), *words)


@ALIGNED
def test_a_target_of_no_source_is_refused(nar: Nar, data: Path, corpus: Path, tmp_path: Path) -> None:
    """FERT-4: nothing could be its words' source."""
    (tmp_path / "s").write_text("bana\n\n")
    (tmp_path / "t").write_text("an-AB\nan-AB\n")
    text = ("--input", tmp_path / "s", tmp_path / "t", "--word-counts", tmp_path / "c")
    refused(nar("align", "--dict", *dictionaries(data), *text), "no word cannot be the source of 1")
