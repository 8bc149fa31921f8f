"""What is installed here: facts for ``nar doctor``, gathered without trust that anything works.

torch, fairseq and the plugin are imported in a forked process: what kills it does not kill the doctor.
"""

import importlib
import multiprocessing
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, List, Optional, Tuple

HOSTS = ("ve-fairseq", "fairseq-fixed", "fairseq")
"""Distributions that provide the package ``fairseq``."""
UNUSED = ("torchaudio", "torchvision")
"""What hosts ask for and nothing here imports."""


@dataclass(frozen=True)
class Trouble:
    """Why something could not be imported; one line."""

    text: str


@dataclass(frozen=True)
class Facts:
    """What the checks judge. ``imports`` holds what each import found, or its Trouble."""

    python: Tuple[int, int, int] = (0, 0, 0)
    versions: Dict[str, str] = field(default_factory=dict)
    hosts: Tuple[str, ...] = ()
    host_folder: Optional[Path] = None
    requirements: Dict[str, List[str]] = field(default_factory=dict)
    imports: Dict[str, Any] = field(default_factory=dict)
    executable: Path = Path("python")
    trainer: Optional[str] = None
    on_path: Optional[str] = None
    local_plugin: Optional[Path] = None
    libnat: Optional[str] = None
    compiler: Optional[str] = None
    driver: Optional[str] = None
    cores: int = 1
    environment: Dict[str, str] = field(default_factory=dict)
    flags: Optional[FrozenSet[str]] = None
    free_disk: int = 0
    free_memory: Optional[int] = None


def name_of(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def versions() -> Dict[str, str]:
    """Every installed distribution by its normal name."""
    found: Dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # the rest of a killed installation has none
            found.setdefault(name_of(name), distribution.metadata["Version"] or "unknown")
    return found


def requirements_of(distribution: str) -> List[str]:
    try:
        return metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []


def folder_of(package: str) -> Optional[Path]:
    """Where a package would be imported from; it is not imported."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def look_at_torch() -> Dict[str, Any]:
    torch = importlib.import_module("torch")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    about = {"version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
    return {**about, "gpus": gpus, "int8": torch.backends.quantized.supported_engines}


def look_at_fairseq() -> str:
    importlib.import_module("fairseq.checkpoint_utils")
    return str(importlib.import_module("fairseq").__version__)


def look_at_plugin() -> Dict[str, Any]:
    plugin = importlib.import_module("nar_plugin")
    tasks = importlib.import_module("fairseq.tasks").TASK_REGISTRY
    archs = importlib.import_module("fairseq.models").ARCH_MODEL_REGISTRY
    return {"folder": str(Path(str(plugin.__file__)).parent), "tasks": list(tasks), "archs": list(archs)}


LOOKS: Dict[str, Callable[[], Any]] = {
    "torch": look_at_torch,
    "fairseq": look_at_fairseq,
    "nar_plugin": look_at_plugin,
}


def looked(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except BaseException as error:  # a broken package may raise anything, SystemExit too
        return Trouble(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _look_at_all(looks: Dict[str, Callable[[], Any]], results: Connection) -> None:
    for stream in (1, 2):  # what packages say while they are imported
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    for name, look in looks.items():
        results.send((name, looked(look)))
    results.close()
    os._exit(0)


def imports(looks: Dict[str, Callable[[], Any]]) -> Dict[str, Any]:
    """What each look found, or its Trouble, in a process of their own that may die of it."""
    sys.stdout.flush()
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_look_at_all, args=(looks, theirs))
    process.start()
    theirs.close()
    found: Dict[str, Any] = {}
    try:
        while True:
            name, result = ours.recv()
            found[name] = result
    except EOFError:
        process.join()
    died = [name for name in looks if name not in found]
    found.update({name: Trouble("not tried: Python died before") for name in died[1:]})
    if died:
        found[died[0]] = Trouble(f"Python died while importing it, status {process.exitcode}")
    return found


def importing(package: str) -> Callable[[], Any]:
    return lambda: str(getattr(importlib.import_module(package), "__version__", "unknown"))


def starter(script: Optional[Path]) -> Optional[str]:
    """The Python that a console script starts; None if there is no such script."""
    if script is None or not script.is_file():
        return None
    beginning = script.read_bytes()[:500].decode(errors="replace")
    found = re.search(r"(/[^\s'\"]*python[\d.]*)", beginning)
    return found[1] if found else "unknown"


def processor() -> Optional[FrozenSet[str]]:
    """The features that Linux names; None elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else None


def free_memory() -> Optional[int]:
    """Bytes that programs may still take; None where Linux does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gather() -> Facts:
    installed = versions()
    provided = metadata.packages_distributions().get("fairseq", [])
    hosts = {name_of(name) for name in provided if name} | (set(HOSTS) & set(installed))
    folder = folder_of("fairseq")
    looks = {**LOOKS, **{name: importing(name) for name in UNUSED if name in installed}}
    beside = Path(sys.executable).parent
    on_path = shutil.which("fairseq-train")
    here = Path("nar_plugin").resolve()
    libraries = sorted(folder.glob("libnat*.so")) if folder else []
    return Facts(
        python=(sys.version_info[0], sys.version_info[1], sys.version_info[2]),
        versions=installed,
        hosts=tuple(sorted(hosts)),
        host_folder=folder,
        requirements={name: requirements_of(name) for name in ("nar_plugin", *sorted(hosts))},
        imports=imports(looks),
        executable=Path(sys.executable),
        trainer=starter(beside / "fairseq-train"),
        on_path=on_path,
        local_plugin=here if (here / "__init__.py").is_file() else None,
        libnat=libraries[0].name if libraries else None,
        compiler=next((path for path in map(shutil.which, ("c++", "g++", "clang++")) if path), None),
        driver=shutil.which("nvidia-smi"),
        cores=cores(),
        environment={name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ},
        flags=processor(),
        free_disk=shutil.disk_usage(".").free,
        free_memory=free_memory(),
    )
