"""The least model has the members of the contract and no others, and mypy tells one that keeps it from one that not."""

import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY, BaseFairseqModel
from omegaconf import OmegaConf

from nar_plugin.architectures import base
from nar_plugin.methods.contract import DecodingModel
from nar_plugin.methods.symbols import Symbols
from nar_plugin.tasks.translation_nar import TranslationNarConfig, TranslationNarTask
from tests.contract.minimal_plugin.model import Minimal, MinimalConfig, MinimalOptions

ROOT = Path(__file__).resolve().parents[2]
SYMBOLS = Symbols(bos=0, pad=1, eos=2, unk=3, size=12)
OF_FAIRSEQ = {"build_model", "max_positions", "forward"}
"""What fairseq asks of any model; to call a model is to call its ``forward``."""

FAIRSEQ_STUBS = {
    "models.pyi": """
from typing import Any, Callable, TypeVar
from torch import nn
T = TypeVar("T")
class BaseFairseqModel(nn.Module): ...
def register_model(name: str, dataclass: Any = ...) -> Callable[[T], T]: ...
""",
    "dataclass.pyi": "class FairseqDataclass: ...\n",
    "__init__.pyi": "",
}
"""fairseq tells no types: a model derived from its classes would pass for everything."""

KEEPING_AND_BREAKING = """
from typing import Any, Callable
from torch import Tensor, nn
from nar_plugin.methods import options
from nar_plugin.methods.contract import DecodingModel, LengthProposals, NetInput, Pass
from nar_plugin.methods.symbols import Symbols
from nar_plugin.methods.terms import Term
from minimal_plugin.model import Minimal, MinimalConfig, MinimalEncoded, MinimalOptions, MinimalState

Contract = DecodingModel[MinimalEncoded, LengthProposals, MinimalState, MinimalOptions]
Forward = Callable[[NetInput, Tensor], list[Term]]


class WrongReturn(Minimal):
    def finish(self, state: MinimalState) -> Tensor:  # type: ignore[override]
        return state.tokens


class WrongArgument(Minimal):
    def max_steps(self, asked: str) -> int:  # type: ignore[override]
        return len(asked)


class Bare:
    name, criterions, inputs, decode_options = Minimal.name, Minimal.criterions, Minimal.inputs, MinimalOptions
    symbols: Symbols
    passes: dict[str, Pass]
    encode, propose, start, refine = Minimal.encode, Minimal.propose, Minimal.start, Minimal.refine
    __call__: Any
    score = Minimal.score


class Lacking(nn.Module):
    name, criterions, inputs, decode_options = Minimal.name, Minimal.criterions, Minimal.inputs, MinimalOptions
    symbols: Symbols
    passes: dict[str, Pass]


def kept(config: MinimalConfig, symbols: Symbols, bare: Bare) -> None:
    model: Contract = Minimal(config, symbols, 9)
    forward: Forward = Minimal(config, symbols, 9).forward
    wrong_return: Contract = WrongReturn(config, symbols, 9)
    wrong_argument: Contract = WrongArgument(config, symbols, 9)
    lacking: Contract = Lacking()
    lacking_two: Contract = bare
"""
REJECTED = ["wrong_return", "wrong_argument", "lacking", "lacking_two"]


def minimal(**options: Any) -> Minimal:
    limits = {"max_source_positions": 10, "max_target_positions": 10}
    return Minimal(MinimalConfig(**{**limits, **options}), SYMBOLS, 9)


def members_of_the_contract() -> set[str]:
    return {name for name in vars(DecodingModel) if not name.startswith("_")}


def own_members(model: Any) -> set[str]:
    """Public names that a model has and that fairseq's base does not give it, or that it says anew."""
    ours = {name for kind in type(model).__mro__[:-1] if kind not in BaseFairseqModel.__mro__ for name in vars(kind)}
    bare = BaseFairseqModel()
    found = ours | (set(vars(model)) - set(vars(bare))) | {name for name, _ in model.named_children()}
    return {name for name in found if not name.startswith("_")}


def test_the_contract_has_members_to_compare() -> None:
    assert {"name", "passes", "encode", "propose", "start", "refine", "finish", "score"} <= members_of_the_contract()
    assert "__call__" in vars(DecodingModel)


def test_the_least_model_has_the_members_of_the_contract_and_the_three_of_fairseq() -> None:
    assert own_members(minimal()) == members_of_the_contract() | OF_FAIRSEQ


def test_it_does_not_stand_on_the_architectures_of_the_package() -> None:
    assert not isinstance(minimal(), base.DecodingModel)
    assert [kind for kind in Minimal.__mro__ if kind.__module__.startswith("nar_plugin")] == []


def test_fairseq_builds_it_from_a_task_that_has_symbols_and_a_source_dictionary() -> None:
    config = MinimalConfig(max_source_positions=10, max_target_positions=7)
    model = Minimal.build_model(config, SimpleNamespace(symbols=SYMBOLS, source_dictionary="ninewords"))
    assert model.max_positions() == (10, 7) and model.symbols is SYMBOLS


def test_its_weights_are_all_in_its_passes() -> None:
    model = minimal()
    in_passes = {weight for one in model.passes.values() for weight in one.module.parameters()}
    assert in_passes == set(model.parameters())


class ByProperties(Minimal):
    """It says by properties, as the contract does, what the others say by attributes of the class."""

    name = property(lambda self: "minimal")
    criterions = property(lambda self: ("token_length",))
    inputs = property(lambda self: ())
    decode_options = property(lambda self: MinimalOptions)


def task_of_words() -> TranslationNarTask:
    words = Dictionary()
    config = TranslationNarConfig(max_source_positions=10, max_target_positions=10, seed=1)
    return TranslationNarTask(config, words, words)


def test_a_model_may_say_by_properties_what_the_contract_says_by_properties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCH_MODEL_REGISTRY, "minimal", ByProperties)
    monkeypatch.setitem(MODEL_REGISTRY, "minimal", ByProperties)
    task = task_of_words()
    limits = {"max_source_positions": 10, "max_target_positions": 10}
    model = task.build_model(OmegaConf.create({"_name": "minimal", **limits}))
    assert isinstance(model, ByProperties)
    assert task.build_generator([model], Namespace(nbest=1)).options == MinimalOptions()
    criterion = task.build_criterion(OmegaConf.create({"_name": "token_length", "normalize": "token"}))
    assert criterion.name == "token_length"


@pytest.mark.slow
def test_mypy_accepts_the_model_and_rejects_those_that_break_the_contract(tmp_path: Path) -> None:
    stubs = tmp_path / "stubs" / "fairseq"
    stubs.mkdir(parents=True)
    for name, text in FAIRSEQ_STUBS.items():
        (stubs / name).write_text(text)
    checked = tmp_path / "checked.py"
    checked.write_text(KEEPING_AND_BREAKING)
    path = os.pathsep.join(map(str, (stubs.parent, ROOT, Path(__file__).parent)))
    mypy = (Path(sys.executable).parent / "mypy", "--ignore-missing-imports", "--follow-imports=silent")
    command = [*map(str, mypy), "--config-file=", f"--cache-dir={ROOT / '.mypy_cache' / 'contract'}", str(checked)]
    environment = {**os.environ, "MYPYPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    errors = [line for line in done.stdout.split("\n") if ": error:" in line]
    lines = KEEPING_AND_BREAKING.split("\n")
    assert len(errors) == len(REJECTED), done.stdout + done.stderr
    found = [lines[int(line.split(":")[1]) - 1] for line in errors]
    assert [name for line in found for name in re.findall(r"^ +(\w+): Contract = ", line)] == REJECTED, (
        done.stdout + done.stderr
    )
