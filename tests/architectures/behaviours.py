"""Which of a specification's numbered behaviours have a test: a test's docstring begins with ``LEE-7: `` and so on."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def numbers(method: str) -> set[int]:
    found = set()
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                head = re.match(r"(?:[A-Z]+-\d+(?:, )?)+: ", ast.get_docstring(node) or "")
                found |= {int(n) for n in re.findall(rf"\b{method}-(\d+)", head[0])} if head else set()
    return found
