"""Behaviours by number: BEHAVIOURS.md lists them, and a test shows one if its docstring begins with ``LEE-7: ``."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

TESTS = Path(__file__).parents[1]
LIST = TESTS / "BEHAVIOURS.md"
CITATION = re.compile(r"(?:[A-Z]+-\d+, )*[A-Z]+-\d+(?=[:.,])")
ENTRY = re.compile(r"\* \*\*([A-Z]+-\d+)\*\* ((?:.+)(?:\n  .+)*)")


def cited_by(docstring: str) -> list[str]:
    """The ids with which a docstring begins."""
    head = CITATION.match(docstring)
    return head[0].split(", ") if head else []


def docstrings() -> list[tuple[Path, str]]:
    """Of every test: its file and its docstring."""
    return [
        (file, ast.get_docstring(node) or "")
        for file in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def entries(text: str) -> list[tuple[str, str]]:
    """Every id of a list and what is said of it, in the order of the list."""
    return [(id, " ".join(said.split())) for id, said in ENTRY.findall(text)]


def numbers(method: str) -> set[int]:
    """Which behaviours of a method have a test."""
    return numbers_of(method, (id for _, text in docstrings() for id in cited_by(text)))


def listed(method: str) -> set[int]:
    """Which behaviours of a method are in the list."""
    return numbers_of(method, (id for id, _ in entries(LIST.read_text(encoding="utf-8"))))


def numbers_of(method: str, ids: Iterable[str]) -> set[int]:
    return {int(id.split("-")[1]) for id in ids if id.split("-")[0] == method}
