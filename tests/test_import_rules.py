"""Who may import whom: the table of folders, held by reading every import of the package."""

import ast
import re
import sys
from pathlib import Path

import pytest

import nar_plugin

ROOT = Path(nar_plugin.__file__).parent
PACKAGE = ROOT.name
FILES = sorted(ROOT.rglob("*.py"))

STANDARD = frozenset(
    "argparse ast atexit collections contextlib ctypes dataclasses enum fileinput functools hashlib io itertools json "
    "logging math multiprocessing os pathlib pickle queue re signal shutil struct sys threading time types "
    "typing warnings weakref".split()
)
"""What the package uses of the standard library: none of it talks to a network or starts a program."""

CONTRACT = {f"{PACKAGE}.methods.{name}" for name in ("contract", "options", "symbols", "terms", "usage")}
EVERYWHERE = {"torch"} | CONTRACT
SHARED_METHODS = {
    f"{PACKAGE}.methods.{name}"
    for name in (
        *(
            "alignments",
            "autoregressive",
            "cache",
            "deduplication",
            "drafters",
            "drafts",
            "gaussian",
            "glancing",
            "lengths",
        ),
        *("noise", "prediction", "speculative", "verification"),
        *("quantizers", "schedules", "source_copy", "transformer"),
    )
}
METHODS = {f"{PACKAGE}.methods"}
COMPAT = {f"{PACKAGE}.compat"}
HOST = {"fairseq", "torch", "numpy", "omegaconf", "hydra"}
DRIVERS = {f"{PACKAGE}.generators.{name}" for name in ("loop", "reference", "speculative")}
LEAVES = {f"{PACKAGE}.generators.{name}" for name in ("candidates", "counters", "hypotheses", "oracle", "stopping")}


def fairseq(*names: str) -> set[str]:
    return {f"fairseq.{name}" for name in names}


FOLDERS: dict[str, set[str]] = {
    # the most specific entry that a module's name begins with holds
    "": {f"{PACKAGE}.{folder}" for folder in ("compat", "architectures", "criterions", "tasks")},
    # the front calls all repairs
    "compat": EVERYWHERE | COMPAT | {"fairseq"},
    # a file repairs one part of the host, and knows of no other but what stands beside a checkpoint
    "compat.checkpoints": HOST | EVERYWHERE | {f"{PACKAGE}.compat.texts"},
    # the host's decoder becomes a verifier of what methods draft
    "compat.cached_decoder": HOST | EVERYWHERE | SHARED_METHODS,
    # what was given to --model-overrides is held against the checkpoints that are read
    "compat.programs": HOST | EVERYWHERE | {f"{PACKAGE}.compat.checkpoints"},
    **{f"compat.{name}": HOST | EVERYWHERE for name in ("data", "engines", "flags", "streams", "texts")},
    "methods": EVERYWHERE | SHARED_METHODS,
    # the records and the options know no method and no network
    "methods.contract": EVERYWHERE,
    "methods.options": {f"{PACKAGE}.methods.usage"},
    "methods.symbols": {"torch"},
    "methods.terms": {"torch"},
    "methods.usage": set(),
    "architectures": EVERYWHERE
    | METHODS
    | COMPAT
    | {f"{PACKAGE}.architectures.base", "omegaconf.II"}
    | fairseq("models", "modules", "dataclass", "utils"),
    # the base gives to every model what a model takes over from a teacher
    "architectures.base": EVERYWHERE
    | METHODS
    | COMPAT
    | {f"{PACKAGE}.architectures.warm_start", "omegaconf.II"}
    | fairseq("models", "dataclass"),
    "architectures.warm_start": EVERYWHERE | METHODS | fairseq("models"),
    # one registered name builds either class, as its --latent says
    "architectures.latent_transformer": EVERYWHERE
    | METHODS
    | {f"{PACKAGE}.architectures.{name}" for name in ("base", "lanmt")}
    | {"omegaconf.II"}
    | fairseq("models", "dataclass"),
    "criterions": EVERYWHERE
    | METHODS
    | COMPAT
    | {f"{PACKAGE}.criterions.base", "omegaconf.II"}
    | fairseq("criterions", "dataclass", "logging", "utils"),
    # generators import each other in one direction: factory, the drivers, what the drivers share
    "generators": EVERYWHERE | METHODS,
    "generators.oracle": EVERYWHERE | {"sacrebleu"},
    "generators.factory": EVERYWHERE | METHODS | DRIVERS | LEAVES,
    "generators.reference": EVERYWHERE | METHODS | LEAVES | {f"{PACKAGE}.generators.loop"},
    "generators.speculative": EVERYWHERE | METHODS | LEAVES | {f"{PACKAGE}.generators.loop"},
    "generators.loop": EVERYWHERE | METHODS | LEAVES,
    "tasks": EVERYWHERE | COMPAT,
    "tasks.engines": EVERYWHERE | METHODS | COMPAT | {f"{PACKAGE}.generators.factory"},
    "tasks.ngrams": EVERYWHERE | {"kenlm"},
    "tasks.shortlists": EVERYWHERE | METHODS | COMPAT,
    "tasks.word_counts": EVERYWHERE | COMPAT | {"numpy"},
    "tasks.scoring": EVERYWHERE | {"sacrebleu"},
    "tasks.truncation": EVERYWHERE | {"numpy"} | fairseq("data"),
    # batches are numpy's and BLEU is sacrebleu's, as in the host's own task
    "tasks.translation_nar": EVERYWHERE
    | METHODS
    | COMPAT
    | {f"{PACKAGE}.tasks.{name}" for name in ("engines", "ngrams", "scoring", "shortlists", "texts", "truncation")}
    | {f"{PACKAGE}.tasks.word_counts"}
    | {f"{PACKAGE}.generators.factory", "omegaconf.II", "numpy", "sacrebleu"}
    | fairseq("tasks", "data", "dataclass", "utils", "logging"),
}


def module_of(file: Path, root: Path = ROOT) -> str:
    """``methods.noise`` for ``nar_plugin/methods/noise.py``; a package is named by its folder, the root is empty."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(source: str, module: str, root: Path = ROOT) -> set[str]:
    """Full names of all that a module imports anywhere in it, ``from`` imports by what they take."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = [root.name, *module.split(".")] if module else [root.name]
                is_package = (root / module.replace(".", "/")).is_dir()
                up = node.level - 1 if is_package else node.level
                base = ".".join([*here[: len(here) - up], *([base] if base else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def allowed_in(module: str, folders: dict[str, set[str]] = FOLDERS) -> set[str]:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (key := ".".join(parts[:length])) in folders:
            return folders[key]
    raise AssertionError(f"{module}: a new folder needs a line in the table")


def is_allowed(name: str, allowed_names: set[str]) -> bool:
    if name.split(".")[0] in STANDARD:
        return True
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in allowed_names)


def forbidden(source: str, module: str) -> set[str]:
    return {name for name in imports(source, module) if not is_allowed(name, allowed_in(module))}


def test_there_is_something_to_check() -> None:
    modules = {module_of(file) for file in FILES}
    assert {"", "compat", "methods.noise", "architectures.mask_predict", "tasks.translation_nar"} <= modules


@pytest.mark.parametrize("file", FILES, ids=lambda file: module_of(file) or PACKAGE)
def test_every_import_is_in_the_table(file: Path) -> None:
    assert forbidden(file.read_text(encoding="utf-8"), module_of(file)) == set()


@pytest.mark.parametrize(
    ("module", "line", "culprit"),
    [
        ("methods.mask_predict", "from fairseq import utils", "fairseq.utils"),
        ("methods.mask_predict", "import omegaconf", "omegaconf"),
        ("methods.mask_predict", "from . import lanmt", "nar_plugin.methods.lanmt"),
        ("methods.mask_predict", "from .lanmt import prior", "nar_plugin.methods.lanmt.prior"),
        ("methods.mask_predict", "from ..generators import loop", "nar_plugin.generators.loop"),
        ("methods.contract", "from .noise import mix", "nar_plugin.methods.noise.mix"),
        ("methods.options", "import torch", "torch"),
        ("methods.noise", "from .mask_predict import Decoder", "nar_plugin.methods.mask_predict.Decoder"),
        ("methods.noise", "import numpy as np", "numpy"),
        ("methods.noise", "import requests", "requests"),
        ("methods.noise", "import subprocess", "subprocess"),
        ("architectures.mask_predict", "from ..criterions import base", "nar_plugin.criterions.base"),
        ("architectures.mask_predict", "from ..generators.loop import Decoded", "nar_plugin.generators.loop.Decoded"),
        ("architectures.lanmt", "from . import mask_predict", "nar_plugin.architectures.mask_predict"),
        ("architectures.lanmt", "from fairseq.tasks import FairseqTask", "fairseq.tasks.FairseqTask"),
        ("architectures.lanmt", "from omegaconf import OmegaConf", "omegaconf.OmegaConf"),
        ("criterions.elbo_length", "from ..architectures.base import SIZES", "nar_plugin.architectures.base.SIZES"),
        ("criterions.elbo_length", "from . import token_length", "nar_plugin.criterions.token_length"),
        ("generators.loop", "import fairseq", "fairseq"),
        ("generators.loop", "from . import factory", "nar_plugin.generators.factory"),
        ("generators.loop", "from .reference import x", "nar_plugin.generators.reference.x"),
        ("generators.speculative", "from .factory import x", "nar_plugin.generators.factory.x"),
        ("generators.candidates", "from .loop import Decoded", "nar_plugin.generators.loop.Decoded"),
        ("generators.counters", "from .candidates import best", "nar_plugin.generators.candidates.best"),
        ("tasks.translation_nar", "from ..generators import loop", "nar_plugin.generators.loop"),
        ("tasks.translation_nar", "from .. import architectures", "nar_plugin.architectures"),
        ("tasks.translation_nar", "from fairseq.models import x", "fairseq.models.x"),
        ("tasks.texts", "from .translation_nar import x", "nar_plugin.tasks.translation_nar.x"),
        ("compat", "from ..methods.noise import mix", "nar_plugin.methods.noise.mix"),
        ("compat.data", "from .programs import check", "nar_plugin.compat.programs.check"),
        ("compat.data", "from ..methods.cache import KVCache", "nar_plugin.methods.cache.KVCache"),
        ("compat.cached_decoder", "from ..methods.ctc import x", "nar_plugin.methods.ctc.x"),
        ("compat.flags", "from ..methods.noise import mix", "nar_plugin.methods.noise.mix"),
        ("", "from .generators import loop", "nar_plugin.generators.loop"),
    ],
)
def test_a_forbidden_import_is_caught_wherever_it_stands(module: str, line: str, culprit: str) -> None:
    inside = f"def late():\n    if True:\n        {line}\n"
    for source in (line + "\n", inside):
        assert forbidden(source, module) == {culprit}


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("methods.mask_predict", "from . import noise"),
        ("methods.mask_predict", "from .contract import State"),
        ("methods.mask_predict", "import torch.nn.functional as F"),
        ("architectures.lanmt", "from ..methods import lanmt"),
        ("architectures.lanmt", "from . import base"),
        ("architectures.lanmt", "from ..compat import load_model"),
        ("architectures.lanmt", "from omegaconf import II"),
        ("generators.factory", "from .loop import RefinementGenerator"),
        ("tasks.translation_nar", "from ..generators import factory"),
        ("tasks.translation_nar", "from . import texts"),
        ("compat", "from . import programs"),
        ("compat.data", "from ..methods.contract import UsageError"),
    ],
)
def test_an_allowed_import_is_no_finding(module: str, line: str) -> None:
    assert forbidden(line, module) == set()


def test_an_unknown_folder_is_no_free_folder() -> None:
    with pytest.raises(AssertionError, match="needs a line in the table"):
        forbidden("import torch", "helpers.misc")


def test_imports_of_the_package_are_relative() -> None:
    """The folder may be renamed by its user: fairseq names the package after it."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [name for name in names if name.split(".")[0] == PACKAGE], file.name


TOOLS = ROOT.parent / "scripts" / "nar_tools"
SHARED = {f"nar_tools.{name}" for name in ("cli", "errors", "files", "progress", "provenance")}
MEASURED = {f"nar_tools.{folder}" for folder in ("measure", "text")}
OF_THE_PLUGIN = METHODS | COMPAT | {f"{PACKAGE}.generators.factory", f"{PACKAGE}.tasks"}
"""Never an architecture, whose insides the contract hides from the tools."""
TOOL_FOLDERS: dict[str, set[str]] = {
    "": set(),
    "__main__": {"nar_tools.cli"},
    "cli": {"nar_tools.errors"},
    "errors": set(),
    "files": SHARED,
    "progress": {"tqdm"},
    "provenance": set(),
    # a verb is thin: what computes stands below, and no verb needs another
    "commands": SHARED | MEASURED | {"nar_tools.jobs", "nar_tools.installation", "nar_tools.runtime"},
    "text": SHARED | {"nar_tools.text", "sacremoses", "subword_nmt", "thot"},
    "text.images": SHARED | {"numpy", "PIL", "sklearn"},
    "measure": SHARED
    | MEASURED
    | OF_THE_PLUGIN
    | {PACKAGE, "torch", "numpy", "matplotlib", "sacrebleu", "ctranslate2"}
    | fairseq("checkpoint_utils", "data", "dataclass", "hub_utils", "models.transformer", "options", "tasks", "utils")
    | {"fairseq_cli.interactive"},
    "jobs": SHARED | COMPAT | {"nar_tools.jobs", "nar_tools.text", "torch", "tqdm"} | fairseq("data"),
    "installation": SHARED | {"nar_tools.installation"},
    # what decodes exported models must run where neither fairseq nor torch is
    "runtime": SHARED | {"nar_tools.runtime", "numpy", "onnxruntime"},
}
SCRIPTS = sorted(TOOLS.rglob("*.py"))
ANYWHERE = set(sys.stdlib_module_names)
"""Tools may start programs and read files as they please; their networks are curl's."""


def forbidden_in_tools(source: str, module: str) -> set[str]:
    allowed = allowed_in(module, TOOL_FOLDERS)
    found = {name for name in imports(source, module, TOOLS) if name.split(".")[0] not in ANYWHERE}
    return {name for name in found if not is_allowed(name, allowed - {PACKAGE}) and name not in allowed}


def test_there_are_tools_to_check() -> None:
    modules = {module_of(file, TOOLS) for file in SCRIPTS}
    assert {"cli", "commands.report", "measure.system", "text.subwords", "jobs.shards"} <= modules


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: module_of(file, TOOLS) or "nar_tools")
def test_every_import_of_the_tools_is_in_their_table(file: Path) -> None:
    assert forbidden_in_tools(file.read_text(encoding="utf-8"), module_of(file, TOOLS)) == set()


@pytest.mark.parametrize(
    ("module", "line", "culprit"),
    [
        ("commands.report", "from . import benchmark", "nar_tools.commands.benchmark"),
        ("commands.report", "import torch", "torch"),
        ("commands.report", "import nar_plugin", "nar_plugin"),
        ("commands.show", "from nar_plugin.compat import load_model", "nar_plugin.compat.load_model"),
        ("measure.tables", "from ..commands import report", "nar_tools.commands.report"),
        ("measure.system", "from nar_plugin.architectures import lanmt", "nar_plugin.architectures.lanmt"),
        ("measure.system", "from nar_plugin.generators import loop", "nar_plugin.generators.loop"),
        ("text.subwords", "from ..measure import scores", "nar_tools.measure.scores"),
        ("text.subwords", "import torch", "torch"),
        ("text.subwords", "from PIL import Image", "PIL.Image"),
        ("jobs.shards", "from ..measure import system", "nar_tools.measure.system"),
        ("files", "import numpy", "numpy"),
        ("runtime.decoder", "import torch", "torch"),
        ("runtime.decoder", "from fairseq import utils", "fairseq.utils"),
    ],
)
def test_a_forbidden_import_of_a_tool_is_caught(module: str, line: str, culprit: str) -> None:
    assert forbidden_in_tools(f"def late():\n    {line}\n", module) == {culprit}


def words(source: str) -> set[str]:
    """Identifiers and texts of a module, docstrings left out."""
    tree, found = ast.parse(source), set()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {id(n.body[0].value) for n in ast.walk(tree) if isinstance(n, documented) and is_docstring(n.body)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found.add(node.value)
        for name in ("id", "attr", "arg", "name"):
            if isinstance(value := getattr(node, name, None), str):
                found.add(value)
    return found


def is_docstring(body: list[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


METHOD = re.compile("ctc|mask.?predict|iterative.?refinement|lanmt|latent|refiner|fertilit|blockwise", re.IGNORECASE)
NAMELESS = [
    *(file for folder in ("generators", "tasks") for file in sorted((ROOT / folder).glob("*.py"))),
    *(ROOT / name for name in ("criterions/base.py", "methods/contract.py")),
]


@pytest.mark.parametrize("file", NAMELESS, ids=module_of)
def test_what_drives_trains_and_counts_names_no_method(file: Path) -> None:
    """A method comes in by the contract, not by a branch for it. (``RefinesLatents`` is a protocol of the pictures.)"""
    named = {word for word in words(file.read_text(encoding="utf-8")) if METHOD.search(word)}
    assert named <= (
        {"RefinesLatents", "latents", "posterior_latents", "latent_steps"} if file.stem == "contract" else set()
    )


def test_a_method_that_is_named_is_found() -> None:
    for line in ('x = "lanmt_refiner"', "cfg.latent_model", "f(decode=LanmtModel)", "def mask_predict_only(): ..."):
        assert [word for word in words(line) if METHOD.search(word)], line
    assert not [word for word in words('"""As in mask-predict."""') if METHOD.search(word)]
