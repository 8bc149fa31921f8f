"""``--engine``: what the networks are computed with."""

import ctypes
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from nar_plugin import compat
from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.methods import int8
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.options import about_of
from nar_plugin.tasks import engines
from nar_plugin.tasks.translation_nar import TranslationNarConfig, TranslationNarTask
from tests import tiny

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("mask_predict_tiny", {"iterations": 4, "lengths": 2}),
    ("iterative_refinement_tiny", {"iterations": 3}),
    ("fertility_nat_tiny", {"fertility": "sample", "decode_samples": 3}),
    ("lanmt_tiny", {"iterations": 2}),
    ("lanmt_tiny", {"iterations": 1, "decode_samples": 3}),
    ("lanmt_continuous_tiny", {"iterations": 2}),
    ("lanmt_refiner_tiny", {"iterations": 2}),
    ("latent_transformer_tiny (fsq)", {"iterations": 1}),
    ("latent_transformer_tiny (vq)", {"lengths": 3}),
]
BATCHES = (1, 3, 64)


def model_of(arch: str, seed: int = 3, **others: Any) -> Any:
    """By its preset, and what makes its codes in parentheses."""
    name, _, latent = arch.partition(" ")
    more = {"latent": latent.strip("()"), "max_update": 9, "codebook_size": 256, "compression": 4} if latent else {}
    return tiny.tiny_model(arch=name, seed=seed, **more, **others)


def in_batches(model: Any, rows: list[tiny.Row], size: int, **options: Any) -> list[Any]:
    cuts = [rows[first : first + size] for first in range(0, len(rows), size)]
    return [group for cut in cuts for group in tiny.decode(model, tiny.sample_of(cut), **options)]


@pytest.mark.parametrize("arch, options", MODELS)
def test_int8_gives_the_same_to_the_bit_in_batches_of_1_and_3_and_64(arch: str, options: dict[str, Any]) -> None:
    model = model_of(arch, 5)
    engines.prepare([model], "int8")
    rows = tiny.random_rows(64, 30, seed=7)
    first, *others = ([group[0] for group in in_batches(model, rows, size, **options)] for size in BATCHES)
    assert len({tuple(one["tokens"].tolist()) for one in first}) > 20, (
        "they are nearly all alike, so this tests nothing"
    )
    for found in others:
        assert [one["tokens"].tolist() for one in found] == [one["tokens"].tolist() for one in first]
        scores = zip(found, first, strict=True)
        assert all(a["positional_scores"].equal(b["positional_scores"]) for a, b in scores)


@pytest.mark.parametrize("arch, options", MODELS)
def test_int8_is_near_float32(arch: str, options: dict[str, Any]) -> None:
    """Of lively random weights most words are the same; those of a trained model nearly all."""
    rows = tiny.random_rows(40, 12, seed=8)
    exact, rounded = (model_of(arch, 6) for _ in range(2))
    engines.prepare([rounded], "int8")
    lengths = {"gold_target_len": True} if "gold_target_len" in options_of(exact) else {}
    sample = tiny.sample_of(rows, rows)
    steps = {"iterations": 0} if "iterations" in options_of(exact) else {}
    first = {**options, **steps, **lengths}
    found, expected = (tiny.texts(tiny.decode(model, sample, **first)) for model in (rounded, exact))
    pairs = [pair for a, b in zip(found, expected, strict=True) for pair in zip(a, b, strict=False)]
    assert sum(a == b for a, b in pairs) > 0.8 * len(pairs)


def options_of(model: Any) -> set[str]:
    return set(about_of(model.decode_options))


def test_to_prepare_again_changes_nothing() -> None:
    model, rows = tiny.tiny_model(), tiny.random_rows(5, 9, seed=1)
    engines.prepare([model], "int8")
    before = tiny.decode(model, tiny.sample_of(rows))
    engines.prepare([model], "int8")
    tiny.assert_same(tiny.decode(model, tiny.sample_of(rows)), before)


def test_what_is_counted_stays_counted() -> None:
    model = tiny.tiny_model()
    engines.prepare([model], "int8")
    generator = RefinementGenerator(model, model.symbols, tiny.options_of(model, iterations=3))
    generator.generate([model], tiny.sample_of(tiny.random_rows(5, 9, seed=1)))
    assert generator.counters.calls == {"encoder": 1, "decoder": 4}


def test_bfloat16_gives_probabilities_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "has_bfloat16", lambda device: True)
    rows = tiny.random_rows(20, 9, seed=2)
    for arch, options in MODELS:
        model = model_of(arch, is_lively=False)
        engines.prepare([model], "bf16")
        found = tiny.decode(model, tiny.sample_of(rows), **options)
        assert len(found) == 20 and all(group[0]["positional_scores"].dtype == torch.float32 for group in found)


def test_what_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "has_bfloat16", lambda device: False)
    with pytest.raises(UsageError, match="^--engine bf16: this processor has no bfloat16"):
        engines.prepare([tiny.tiny_model()], "bf16")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"^--engine compiled: no C\+\+ compiler no-such-compiler"):
        engines.prepare([tiny.tiny_model()], "compiled")
    for engine in ("int8", "bf16", "compiled"):
        with pytest.raises(UsageError, match=f"^--engine {engine}: not with --fp16"):
            engines.prepare([tiny.tiny_model().half()], engine)
    monkeypatch.setattr(int8, "KERNELS", "none")
    int8.input_most.cache_clear()
    with pytest.raises(UsageError, match="^--engine int8: this torch has no 8-bit kernels"):
        engines.prepare([tiny.tiny_model()], "int8")
    refiner = tiny.tiny_model(arch="lanmt_refiner_tiny", refiner="energy")
    for engine in ("int8", "compiled"):
        with pytest.raises(UsageError, match=f"^--engine {engine}: not with --latent-inference energy"):
            tiny.options_of(refiner, engine=engine)


FAULTS = """
import resource, torch
from nar_plugin import compat

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(8_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
compat.keep_freed_memory()
faults()
print(before, faults())
"""
"""Pages that 32 MB of new memory take from the system, before and after; in a process of its own, which it changes."""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc alone gives memory back so")
def test_memory_that_was_freed_serves_the_next_pass() -> None:
    said = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    before, after = map(int, said.split()[-2:])
    assert before > 100 and after < before / 10


@pytest.mark.parametrize(("program", "keeps"), [("train", True), ("generate", True), ("nobody", False)])
def test_the_hosts_programs_keep_their_memory(program: str, keeps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And somebody's Python, whose memory is not ours, does not."""
    calls: list[bool] = []
    monkeypatch.setattr(compat, "keep_freed_memory", lambda: calls.append(True))
    monkeypatch.setattr(sys, "argv", [f"/bin/fairseq-{program}"])
    monkeypatch.setitem(sys.modules, f"fairseq_cli.{program}", ModuleType(program))
    with pytest.raises(UsageError):
        TranslationNarTask.setup_task(TranslationNarConfig(data=""))
    assert bool(calls) is keeps


def test_what_compiling_takes_is_known() -> None:
    before = compat.seconds_of_compiling()
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
    assert compat.seconds_of_compiling() > before


@pytest.mark.slow
@pytest.mark.parametrize("arch, options", MODELS)
def test_compiled_passes_give_the_same_tokens_for_any_shape(arch: str, options: dict[str, Any]) -> None:
    rows = tiny.random_rows(12, 20, seed=3)
    eager, compiled = (model_of(arch) for _ in range(2))
    engines.prepare([compiled], "compiled")
    for size in (1, 5, 12):
        tiny.assert_same(in_batches(compiled, rows, size, **options), in_batches(eager, rows, size, **options))
