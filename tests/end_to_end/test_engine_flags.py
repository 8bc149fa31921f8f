"""``--engine`` in the host's programs: heeded by every kind of model, or one line."""

from pathlib import Path

from tests.conftest import ADAM, LIMITS, STUDENT
from tests.end_to_end.programs import TASK, complains, program, succeed, tagged

INT8 = ("--engine", "int8")


def test_int8_decodes_students_and_teachers_and_both_together(data: Path, student: Path, teacher: Path) -> None:
    for path in (student, teacher, f"{student}:{teacher}"):
        flags = ("--iter-decode-with-external-reranker", "--iter-decode-with-beam", 3) if ":" in str(path) else ()
        words = (data, *TASK, "--path", path, *flags, "--batch-size", 16)
        exact, rounded = (dict(tagged(succeed("fairseq-generate", *words, *more), "H")) for more in ((), INT8))
        assert exact.keys() == rounded.keys() and len(exact) > 20
        same = sum(exact[number][1] == rounded[number][1] for number in exact)
        assert same > 0.8 * len(exact)
        assert any(exact[number][0] != rounded[number][0] for number in exact), "nothing was rounded"


def test_lines_are_answered_one_by_one_as_together(data: Path, student: Path) -> None:
    given = b"bana deret\nkisil\n\nbana kisil deret bana\n"
    words = (data, *TASK, "--path", student, *INT8)
    alone = succeed("fairseq-interactive", *words, stdin=given)
    together = succeed("fairseq-interactive", *words, "--buffer-size", 4, "--batch-size", 4, stdin=given)
    assert tagged(alone, "H") == tagged(together, "H") and len(tagged(alone, "H")) == 4


def test_a_training_and_a_validation_take_no_engine(data: Path, student: Path) -> None:
    short = (*STUDENT, *LIMITS, *ADAM, "--max-tokens", 500, "--no-save")
    complains(program("fairseq-train", data, *TASK, *short, *INT8), "--engine int8", "decode")
    validate = program("fairseq-validate", data, *TASK, "--path", student, "--max-tokens", 500, *INT8)
    complains(validate, "--engine int8", "decode")
    for engine in ("fp4", "INT8"):
        assert program("fairseq-generate", data, *TASK, "--path", student, "--engine", engine).code == 2
