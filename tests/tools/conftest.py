"""``nar`` as a user calls it, without a process of its own."""

from typing import Any, Callable

import pytest

from nar_tools import cli
from tests.end_to_end.programs import Outcome

Nar = Callable[..., Outcome]


@pytest.fixture
def nar(capsys: pytest.CaptureFixture[str]) -> Nar:
    """``nar("verb", ...)``: how it ends and what it says."""

    def run(*words: Any) -> Outcome:
        capsys.readouterr()
        try:
            cli.main([str(word) for word in words])
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run
