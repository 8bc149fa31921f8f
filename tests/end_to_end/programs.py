"""Runs fairseq's programs as a user would, and reads what they print.

``console`` starts the installed script. ``program`` does the same in a process forked from a server that has fairseq
imported already, which saves the seconds of starting; the plugin itself is not imported there, so ``--user-dir`` works
exactly as in a fresh interpreter. Output is parted by line feeds only, as the programs' users' pipes do it.
"""

import atexit
import importlib
import json
import logging
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, NoReturn, Tuple

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = str(ROOT / "nar_plugin")
TASK = ("--user-dir", PLUGIN, "--task", "translation_nar")
STOCK = ("--task", "translation")
PRELOADED = ["fairseq", "fairseq.tasks", "fairseq.models", "fairseq.criterions", "fairseq.checkpoint_utils"]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the server starts: more threads are far slower
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(PRELOADED + ["fairseq.trainer", "fairseq.options", "hydra", "sacrebleu", "sacremoses"])


@dataclass(frozen=True)
class Outcome:
    """How a program ended. ``code`` is negative where a signal ended it."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> List[str]:
        return self.stdout.split("\n")

    @property
    def complaint(self) -> str:
        """The last line on stderr that is no warning of Python's: what the program died of."""
        lines = [line for line in self.stderr.split("\n") if line.strip()]
        return lines[-1] if lines else ""


class Hypothesis(NamedTuple):
    id: int
    score: float
    text: str


def _environment() -> Dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUTF8": "1"}


def _exit(code: int) -> NoReturn:
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _behave_as_interpreter(words: List[str], folder: str, streams: List[str], environment: Dict[str, str]) -> None:
    """In the forked process: take over the standard streams, run the program, and end as Python ends one."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # a process forked from a server would start a server of its own, in seconds, for each worker that loads data
    multiprocessing.set_start_method("fork", force=True)
    append = os.O_WRONLY | os.O_APPEND
    for number, (path, flags) in enumerate(zip(streams, (os.O_RDONLY, append, append), strict=True)):
        os.dup2(os.open(path, flags), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)
    sys.argv = words
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() not in (ROOT, ROOT / "scripts")]
    try:
        _run(words[0])
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            _exit(error.code or 0)
        print(error.code, file=sys.stderr)
        _exit(1)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        _exit(1)
    _exit(0)


def _run(name: str) -> None:
    """A program of fairseq's by its ``cli_main``, or a script."""
    if not name.startswith("fairseq-"):
        sys.path.insert(0, str(Path(name).resolve().parent))
        runpy.run_path(name, run_name="__main__")
        return
    module = "fairseq_cli." + name[len("fairseq-") :].replace("-", "_")
    if module.endswith("train"):
        logging.root.handlers.clear()  # it alone sets up logging before it imports fairseq
    importlib.import_module(module).cli_main()


def begun(words: List[str], folder: str, streams: List[str], environment: Dict[str, str]) -> BaseProcess:
    """A program that runs in a forked process; ``streams`` are the paths of its standard streams."""
    process = _forks.Process(target=_behave_as_interpreter, args=(words, folder, streams, environment))
    process.start()
    return process


def forked(words: List[str], folder: str, streams: List[str], environment: Dict[str, str], seconds: float = 300) -> int:
    """The exit code of a program, run in a forked process; negative where a signal ended it. Raises TimeoutError."""
    process = begun(words, folder, streams, environment)
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"{words[0]} took more than {seconds} s")
    assert process.exitcode is not None
    return process.exitcode


def read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


def program(name: str, *args: Any, stdin: bytes = b"", folder: Path = ROOT, seconds: float = 300) -> Outcome:
    """Run ``fairseq-…`` in a forked process to its end."""
    with tempfile.TemporaryDirectory() as place:
        streams = [Path(place, stream) for stream in ("in", "out", "err")]
        for stream in streams:
            stream.write_bytes(stdin if stream.name == "in" else b"")
        words = [name, *map(str, args)]
        code = forked(words, str(folder), [str(stream) for stream in streams], dict(os.environ), seconds)
        return Outcome(code, read(streams[1]), read(streams[2]))


def succeed(name: str, *args: Any, **options: Any) -> Outcome:
    """As ``program``, and it must end well."""
    outcome = program(name, *args, **options)
    assert outcome.code == 0, f"{name} ended with {outcome.code}:\n{outcome.stdout[-2000:]}\n{outcome.stderr[-4000:]}"
    return outcome


def script(name: str) -> str:
    """The path of an installed console script."""
    return str(Path(sys.executable).parent / name)


def console(command: List[Any], stdin: bytes = b"", folder: Path = ROOT) -> Outcome:
    """Run a command as a process of its own."""
    done = subprocess.run(
        [str(word) for word in command], input=stdin, capture_output=True, cwd=folder, env=_environment(), timeout=300
    )
    return Outcome(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def shell(line: str, folder: Path = ROOT) -> Outcome:
    """Run a line of bash in which the installed scripts are found."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        capture_output=True,
        cwd=folder,
        env={**_environment(), "PATH": path},
        timeout=300,
        text=True,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def tagged(outcome: Outcome, tag: str) -> List[Tuple[int, List[str]]]:
    """The lines ``TAG-id<tab>field…`` in the order printed."""
    found = [line.split("\t") for line in outcome.lines if line.startswith(f"{tag}-")]
    return [(int(fields[0][len(tag) + 1 :]), fields[1:]) for fields in found]


def hypotheses(outcome: Outcome) -> List[Hypothesis]:
    """The H lines in the order printed."""
    return [Hypothesis(id, float(score), text) for id, (score, text) in tagged(outcome, "H")]


def texts(outcome: Outcome) -> List[str]:
    """One hypothesis a sentence, in the order of ids, which must be 0 … n − 1, each once."""
    found = sorted(hypotheses(outcome))
    assert [hypothesis.id for hypothesis in found] == list(range(len(found)))
    return [hypothesis.text for hypothesis in found]


def logged(outcome: Outcome, kind: str = "train_inner") -> List[Dict[str, Any]]:
    """The statistics that ``--log-format json`` logs: ``train_inner``, ``train`` or ``valid``."""
    lines = [line for line in outcome.lines if f"| INFO | {kind} | {{" in line]
    return [json.loads(line[line.index("{") :]) for line in lines]


def bleu(outcome: Outcome) -> float:
    """BLEU as fairseq-generate prints it."""
    line = next(line for line in outcome.lines if line.startswith("Generate "))
    return float(line.split("BLEU4 = ")[1].split(",")[0])


def complains(outcome: Outcome, *words: str) -> None:
    """Asserts that a program failed with one clear line, without a traceback, in which every word stands."""
    said = f"\nstdout: {outcome.stdout[-300:]}\nstderr: {outcome.stderr[-1000:]}"
    assert outcome.code != 0, "it did not fail" + said
    assert "Traceback" not in outcome.stderr + outcome.stdout, said
    for word in words:
        assert word in outcome.complaint, f"{word!r} is not in the last line of stderr" + said


def spy(folder: Path, body: str) -> Tuple[str, str]:
    """Options for a user folder that imports the plugin and then runs ``body``, which may replace its methods."""
    package = folder / "spying_plugin"
    package.mkdir()
    beginning = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport nar_plugin\n"
    (package / "__init__.py").write_text(beginning + body, encoding="utf-8")
    return "--user-dir", str(package)
