"""A command that cannot work ends in one line that says what to change, never in a traceback."""

import shutil
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence, Tuple

import pytest
import torch

from nar_plugin.methods.contract import UsageError
from nar_plugin.tasks.translation_nar import TranslationNarConfig, TranslationNarTask
from tests.conftest import ADAM, LIMITS, STUDENT, TINY_TRANSFORMER
from tests.end_to_end.programs import PLUGIN, TASK, Outcome, complains, console, program, script

PLUGIN_ONLY = ("--user-dir", PLUGIN)
SHORT = (*LIMITS, *ADAM, "--max-tokens", 500, "--max-update", 1, "--no-save", "--disable-validation")


class Files(NamedTuple):
    data: Path
    student: Path
    teacher: Path


@pytest.fixture
def files(data: Path, student: Path, teacher: Path) -> Files:
    return Files(data, student, teacher)


def train(data: Path, *options: Any) -> Outcome:
    return program("fairseq-train", data, *SHORT, *options)


TRAININGS: Sequence[Tuple[str, Tuple[Any, ...], Tuple[str, ...]]] = [
    ("without_the_task", (*PLUGIN_ONLY, *STUDENT), ("--task translation_nar",)),
    ("under_the_host_s_task", (*PLUGIN_ONLY, "--task", "translation_lev", *STUDENT), ("--task translation_nar",)),
    (
        "with_a_criterion_of_the_host",
        (*TASK, "--arch", "mask_predict_tiny", "--criterion", "cross_entropy"),
        ("--criterion token_length", "cross_entropy"),
    ),
    (
        "of_a_transformer_with_our_criterion",
        (*TASK, *TINY_TRANSFORMER, "--criterion", "token_length"),
        ("--criterion", "token_length"),
    ),
    (
        "with_one_table_for_two_dictionaries",
        (*TASK, *STUDENT, "--share-all-embeddings"),
        ("joint", "dictionary"),
    ),
    ("with_a_width_that_heads_do_not_divide", (*TASK, *STUDENT, "--encoder-attention-heads", 5), ("heads",)),
    ("with_bad_json", (*TASK, *STUDENT, "--eval-bleu", "--eval-bleu-args", "{beam: 1}"), ("--eval-bleu-args",)),
    ("with_json_that_is_no_object", (*TASK, *STUDENT, "--eval-bleu", "--eval-bleu-args", "[1]"), ("--eval-bleu-args",)),
    (
        "with_bad_json_for_the_detokeniser",
        (*TASK, *STUDENT, "--eval-bleu", "--eval-bleu-detok-args", "{"),
        ("--eval-bleu-detok-args",),
    ),
    (
        "with_an_idle_flag_for_validation",
        (*TASK, *STUDENT, "--eval-bleu", "--eval-bleu-args", '{"sampling": true}'),
        ("--sampling", "mask_predict"),
    ),
]


@pytest.mark.parametrize(("options", "words"), [case[1:] for case in TRAININGS], ids=[case[0] for case in TRAININGS])
def test_a_training_that_cannot_work_says_so(options: Tuple[Any, ...], words: Tuple[str, ...], data: Path) -> None:
    complains(train(data, *options), *words)


DECODINGS: Sequence[Tuple[str, Tuple[Any, ...], Tuple[str, ...]]] = [
    ("with_a_stop_rule", ("--stop-rule", "fixed-point"), ("--stop-rule", "mask_predict")),
    ("with_sampling", ("--sampling", "--beam", 1), ("--sampling", "mask_predict")),
    ("with_two_idle_flags", ("--no-repeat-ngram-size", 3, "--unkpen", 1), ("--no-repeat-ngram-size", "--unkpen")),
    ("with_a_prefix", ("--prefix-size", 1), ("--prefix-size",)),
    ("with_constraints", ("--constraints",), ("--constraints",)),
    ("with_more_best_than_candidates", ("--nbest", 3), ("--nbest 3 needs 3", "--iter-decode-with-beam")),
    ("with_a_length_penalty_that_is_not_used", ("--lenpen", 0.6), ("--rescore-norm lenpen",)),
    ("with_a_reranker_but_one_path", ("--iter-decode-with-external-reranker",), ("--path student.pt:teacher.pt",)),
    ("with_a_negative_number_of_passes", ("--iter-decode-max-iter", -1), ("--iter-decode-max-iter",)),
    ("without_candidates", ("--iter-decode-with-beam", 0), ("--iter-decode-with-beam",)),
    ("with_no_room_for_a_candidate", ("--max-candidate-tokens", 0), ("--max-candidate-tokens 0",)),
    ("with_candidates_of_references", ("--score-reference", "--iter-decode-with-beam", 2), ("--score-reference",)),
]


@pytest.mark.parametrize(("options", "words"), [case[1:] for case in DECODINGS], ids=[case[0] for case in DECODINGS])
def test_a_decoding_that_cannot_work_says_so(options: Tuple[Any, ...], words: Tuple[str, ...], files: Files) -> None:
    complains(program("fairseq-generate", files.data, *TASK, "--path", files.student, *options), *words)


@pytest.mark.parametrize("task", ["translation", "translation_lev"])
@pytest.mark.parametrize("name", ["fairseq-generate", "fairseq-interactive"])
def test_decoding_under_a_task_of_the_host_names_the_right_task(name: str, task: str, files: Files) -> None:
    outcome = program(name, files.data, *PLUGIN_ONLY, "--task", task, "--path", files.student)
    complains(outcome, "--task translation_nar")


def test_several_models_without_a_reranker_are_refused(files: Files) -> None:
    outcome = program("fairseq-generate", files.data, *TASK, "--path", f"{files.student}:{files.student}")
    complains(outcome, "--path", "--iter-decode-with-external-reranker")


def test_a_student_is_no_reranker(files: Files) -> None:
    options = ("--path", f"{files.student}:{files.student}", "--iter-decode-with-external-reranker")
    complains(program("fairseq-generate", files.data, *TASK, *options), "autoregressive", "--path")


def test_a_teacher_in_the_students_place_is_refused(files: Files) -> None:
    options = ("--path", f"{files.teacher}:{files.student}", "--iter-decode-with-external-reranker")
    complains(program("fairseq-generate", files.data, *TASK, *options), "--path student.pt:teacher.pt")


def test_refinement_steps_of_an_autoregressive_model_are_refused(files: Files) -> None:
    complains(program("fairseq-generate", files.data, *TASK, "--path", files.teacher, "--print-step"), "--print-step")


@pytest.mark.parametrize("other", ["--restore-file", "--finetune-from-model"])
def test_going_on_with_weights_of_another_shape_says_so(other: str, files: Files, tmp_path: Path) -> None:
    options = (*TASK, *STUDENT, "--encoder-embed-dim", 64, "--save-dir", tmp_path, other, files.student)
    complains(train(files.data, *options), "architectures match")


def without_last_words(dictionary: Path) -> None:
    dictionary.write_text("".join(dictionary.read_text(encoding="utf-8").splitlines(keepends=True)[:-3]))


def cut_off(dictionary: Path) -> None:
    dictionary.write_bytes(dictionary.read_bytes().replace(b" ", b"", 1))


def not_text(dictionary: Path) -> None:
    dictionary.write_bytes(b"\xff\xfe\x00" * 20)


def twice(dictionary: Path) -> None:
    dictionary.write_text(dictionary.read_text(encoding="utf-8").split("\n")[0] + "\n" + dictionary.read_text())


DAMAGES: Sequence[Tuple[str, Callable[[Path], None], Tuple[str, ...]]] = [
    ("of_another_size", without_last_words, ("dictionary",)),
    ("with_a_line_without_a_count", cut_off, ("dict.tgt.txt",)),
    ("that_is_not_text", not_text, ("dict.tgt.txt",)),
    ("with_a_word_twice", twice, ("dict.tgt.txt",)),
    ("that_is_missing", Path.unlink, ("dict.tgt.txt",)),
]


@pytest.mark.parametrize(("damage", "words"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_a_damaged_dictionary_is_named(
    damage: Callable[[Path], None], words: Tuple[str, ...], files: Files, tmp_path: Path
) -> None:
    shutil.copytree(files.data, tmp_path / "data")
    damage(tmp_path / "data" / "dict.tgt.txt")
    complains(program("fairseq-generate", tmp_path / "data", *TASK, "--path", files.student), *words)


@pytest.mark.parametrize("kind", ["missing", "empty", "a_file"])
def test_a_folder_without_data_is_named(kind: str, files: Files, tmp_path: Path) -> None:
    given = tmp_path / "given"
    if kind == "empty":
        given.mkdir()
    elif kind == "a_file":
        given.write_text("no data")
    complains(program("fairseq-generate", given, *TASK, "--path", files.student), str(given))
    complains(train(given, *TASK, *STUDENT), str(given))
    languages = ("--source-lang", "src", "--target-lang", "tgt")
    complains(train(given, *TASK, *STUDENT, *languages), str(given))


def test_a_missing_split_is_named(files: Files) -> None:
    options = (*TASK, "--path", files.student, "--gen-subset", "newstest")
    complains(program("fairseq-generate", files.data, *options), "newstest")


def test_an_installed_script_complains_alike(files: Files) -> None:
    """The same as a process of its own, so that nothing here hangs on how the tests start programs."""
    command = [script("fairseq-generate"), files.data, *TASK, "--path", files.student, "--sampling", "--beam", 1]
    outcome = console(command)
    complains(outcome, "--sampling", "mask_predict")
    assert outcome.code == 1


def test_products_for_a_cpu_are_refused_on_another_device(data: Path) -> None:
    task = TranslationNarTask.setup_task(TranslationNarConfig(data=str(data), cpu_autocast=True, seed=1))
    with pytest.raises(UsageError, match="--cpu-autocast is for training on a CPU"):
        task.train_step({"id": torch.zeros(1, device="meta")}, None, None, None, 0)
