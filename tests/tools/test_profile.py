"""``nar profile``: which operators take the time of a decode, and what their products alone would take."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from nar_tools.measure import operators
from nar_tools.measure.operators import Operator, Profile
from tests.end_to_end.programs import TASK, complains
from tests.tools.conftest import Nar

WAY = (*TASK, "--cpu", "--iter-decode-max-iter", 1)


@pytest.mark.parametrize(
    ("name", "is_product"),
    [
        ("aten::addmm", True),
        ("aten::bmm", True),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", True),
        ("quantized::linear_with_input_q_dq_qweight_dq_output_fp32", True),
        ("aten::mul", False),
        ("aten::linear", False),
        ("aten::_log_softmax", False),
    ],
)
def test_products_of_matrices_are_known_by_their_names(name: str, is_product: bool) -> None:
    """``linear`` itself only calls one."""
    assert Operator(name, 1.0, 1).is_product == is_product


def test_times_are_of_one_decode_and_the_dearest_come_first() -> None:
    events = [SimpleNamespace(key=key, self_cpu_time_total=us, count=4) for key, us in (("a", 3000), ("b", 8000))]
    assert operators.operators(events, repeats=2) == [Operator("b", 4.0, 2.0), Operator("a", 1.5, 2.0)]


def test_the_table_sums_up_to_the_whole() -> None:
    found = [Operator("aten::mm", 4.0, 2), Operator("aten::mul", 2.0, 6), Operator("aten::bmm", 1.0, 1)]
    *rows, whole, floor = operators.lines(Profile(6.0, 5.5, 10.0, found), most=1)[1:]
    assert [row.split()[-2:] for row in rows] == [["4.000", "40.0%"], ["3.000", "30.0%"], ["3.000", "30.0%"]]
    assert rows[1].startswith("2 other operators ") and rows[2].startswith("between operators (Python) ")
    assert whole == "all sentences: 6.000 ms, of it the forward passes alone 5.500 ms; under the profiler 10.000 ms"
    assert floor.startswith("products of matrices alone: 5.000 ms")


@pytest.mark.parametrize(
    ("engine", "product"),
    [("eager", "aten::addmm"), ("int8", "quantized::linear_with_input_q_dq_qweight_dq_output_fp32")],
)
def test_a_decode_is_profiled_under_its_engine(engine: str, product: str, data: Path, student: Path, nar: Nar) -> None:
    words = ("--sentences", 4, "--in-batches", 2, "--repeats", 1, "--operators", 100)
    found = nar("profile", data, *WAY, "--path", student, "--engine", engine, *words)
    assert found.code == 0, found.stderr
    table = {line.split()[0]: line.split() for line in found.stdout.splitlines()}
    assert int(table[product][1]) >= 2 * 10, "two batches, each of two passes through several layers"
    whole, passes, profiled, floor = map(float, re.findall(r"([\d.]+) ms", found.stdout))
    assert 0 < floor < profiled and 0 < passes < 2 * whole


def test_a_decode_by_fairseqs_own_search_has_no_passes_of_ours(data: Path, teacher: Path, nar: Nar) -> None:
    found = nar("profile", data, *TASK, "--cpu", "--beam", 1, "--path", teacher, "--sentences", 2, "--repeats", 1)
    assert found.code == 0 and "all sentences: " in found.stdout and "passes" not in found.stdout


def test_what_cannot_be_profiled_is_said_in_one_line(data: Path, student: Path, tmp_path: Path, nar: Nar) -> None:
    complains(nar("profile", data, *WAY, "--path", tmp_path / "none.pt"), "none.pt")
    complains(nar("profile", data, *WAY), "--path is missing")
    assert nar("profile", data, *WAY, "--path", student, "--repeats", 0).code == 2
