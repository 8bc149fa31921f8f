"""The doctor: what it says of every installation that can be faked, and that nothing broken breaks it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from nar_tools import cli
from nar_tools.installation import checks, facts
from nar_tools.installation.checks import FAIL, OK, WARN, Record, fits
from nar_tools.installation.facts import Facts, Trouble
from tests.end_to_end.programs import ROOT

NO_MODULE = Trouble("ModuleNotFoundError: No module named 'fairseq'")
TORCH: Dict[str, Any] = {"version": "2.13.0+cpu", "cuda": None, "gpus": [], "threads": 1}
PLUGIN: Dict[str, Any] = {"folder": "/p/nar_plugin", "tasks": ["translation_nar"], "archs": ["latent_transformer"]}
SOUND = Facts(
    python=(3, 12, 4),
    versions={
        "ve-fairseq": "0.12.4",
        "torch": "2.13.0+cpu",
        "numpy": "2.4.6",
        "omegaconf": "2.3.0",
        "hydra-core": "1.3.2",
        "sacrebleu": "2.6.0",
        "sacremoses": "0.2.0",
        "subword-nmt": "0.3.8",
    },
    hosts=("ve-fairseq",),
    requirements={
        "nar_plugin": ["ve-fairseq>=0.12.4", "torch>=2.6", "numpy", "sacrebleu>=2.0", "pytest; extra == 'dev'"],
        "ve-fairseq": ["hydra-core<1.4,>=1.3", "omegaconf"],
    },
    imports={"torch": TORCH, "fairseq": "0.12.4", "nar_plugin": PLUGIN},
    executable=Path("/e/bin/python"),
    trainer="/e/bin/python3.12",
    on_path="/e/bin/fairseq-train",
    libnat="libnat.so",
    cores=8,
    flags=frozenset(["avx2", "avx512f", "avx512_bf16"]),
    free_disk=1 << 40,
    free_memory=1 << 40,
)


def with_imports(**changed: Any) -> Facts:
    return replace(SOUND, imports={**SOUND.imports, **changed})


def with_torch(**changed: Any) -> Facts:
    return with_imports(torch={**TORCH, **changed})


def with_versions(**changed: str) -> Facts:
    """Underscores stand for hyphens."""
    named = {name.replace("_", "-"): version for name, version in changed.items()}
    return replace(SOUND, versions={**SOUND.versions, **named})


def hosted(*hosts: str, **changed: Any) -> Facts:
    return replace(SOUND, hosts=hosts, versions={**SOUND.versions, **{host: "0.12.2" for host in hosts}}, **changed)


def without(name: str) -> Facts:
    return replace(SOUND, versions={key: value for key, value in SOUND.versions.items() if key != name})


def records(facts: Facts, what: str) -> List[Record]:
    return [record for record in checks.verdicts(facts) if record.what == what]


def test_a_sound_installation_has_nothing_but_ok() -> None:
    assert {record.verdict for record in checks.verdicts(SOUND)} == {OK}
    assert not [record for record in checks.verdicts(SOUND) if "\n" in str(record)]


@pytest.mark.parametrize(
    ("facts", "what", "verdict", "words"),
    [
        (replace(SOUND, python=(3, 9, 1)), "Python", FAIL, ["3.9.1", "3.10 or later", "-> PYTHON=python3.12"]),
        (replace(SOUND, python=(3, 10, 1)), "Python", WARN, ["3.11 and 3.12 are tested"]),
        (replace(SOUND, python=(3, 14, 0)), "Python", WARN, ["3.14.0: 3.11 and 3.12 are tested"]),
        (hosted(), "host", FAIL, ["nothing provides", "-> bash scripts/install.sh"]),
        (hosted(host_folder=Path("/clone/fairseq")), "host", WARN, ["/clone/fairseq", "of no distribution"]),
        (
            hosted("fairseq", "ve-fairseq"),
            "host",
            FAIL,
            ["over one another", "pip uninstall -y fairseq ve-fairseq; bash"],
        ),
        (hosted("fairseq-fixed"), "host", WARN, ["nar_plugin asks for ve-fairseq", "pip uninstall -y fairseq-fixed; "]),
        (hosted("fairseq"), "combination", FAIL, ["fairseq 0.12.2 does not import on Python 3.11"]),
        (with_versions(hydra_core="1.0.7"), "combination", FAIL, ["hydra-core 1.0.7 does not import"]),
        (hosted("fairseq", python=(3, 10, 1)), "combination", WARN, ["was written for numpy 1", "numpy<2"]),
        (with_imports(fairseq=NO_MODULE), "fairseq", FAIL, ["does not import: ModuleNotFoundError"]),
        (with_imports(torch=Trouble("OSError: libcudart.so")), "torch", FAIL, ["libcudart.so", "install.sh"]),
        (with_torch(version="2.5.1"), "torch", FAIL, ["2.5.1", "2.6 or later is needed", "pip install 'torch>=2.6'"]),
        (with_torch(cuda="12.8", gpus=["H100"]), "torch", OK, ["built for CUDA 12.8, GPU: H100"]),
        (replace(SOUND, driver="/bin/nvidia-smi"), "torch", WARN, ["though nvidia-smi", "install a torch with CUDA"]),
        (replace(with_torch(cuda="12.8"), driver="/x"), "torch", WARN, ["no GPU", "must agree on CUDA"]),
        (without("sacremoses"), "sacremoses", FAIL, ["missing", "pip install 'sacremoses'"]),
        (
            with_versions(sacrebleu="1.5.1"),
            "sacrebleu",
            FAIL,
            ["nar_plugin asks for >=2.0", "pip install 'sacrebleu>=2.0'"],
        ),
        (with_versions(hydra_core="1.4.1"), "hydra-core", WARN, ["ve-fairseq asks for <1.4,>=1.3"]),
        (with_imports(nar_plugin=Trouble("SyntaxError: x")), "nar_plugin", FAIL, ["SyntaxError", "install.sh"]),
        (
            with_imports(fairseq=NO_MODULE, nar_plugin=NO_MODULE),
            *("nar_plugin", FAIL, ["No module named 'fairseq'", "-> first what FAILs above"]),
        ),
        (with_imports(nar_plugin={**PLUGIN, "archs": []}), "nar_plugin", FAIL, ["not register latent_transformer"]),
        (
            replace(SOUND, local_plugin=Path("/q/nar_plugin")),
            "--user-dir",
            WARN,
            ["/q/nar_plugin is not the nar_plugin"],
        ),
        (replace(SOUND, trainer=None), "fairseq-train", FAIL, ["not beside /e/bin/python; PATH leads to /e/bin"]),
        (
            replace(SOUND, trainer="/old/bin/python"),
            "fairseq-train",
            FAIL,
            ["starts /old/bin/python", "moved or copied"],
        ),
        (replace(SOUND, on_path=None), "fairseq-train", OK, ["not on PATH", 'export PATH="/e/bin:$PATH"']),
        (replace(SOUND, on_path="/usr/bin/fairseq-train"), "fairseq-train", WARN, ["leads to /usr/bin/fairseq-train"]),
        (replace(SOUND, libnat=None), "libnat", OK, ["no C++ compiler", "only fairseq's Levenshtein"]),
        (SOUND, "ctranslate2", OK, ["not there", "only nar benchmark", "-> pip install ctranslate2"]),
        (
            with_versions(ctranslate2="4.8.5"),
            "ctranslate2",
            OK,
            ["4.8.5 (nar benchmark --engine"],
        ),
        (replace(SOUND, libnat=None, compiler="/bin/c++"), "libnat", OK, ["/bin/c++ could compile it"]),
        (SOUND, "sil-thot", OK, ["not there; only nar align needs it", "-> pip install sil-thot"]),
        (with_versions(sil_thot="3.5.3"), "sil-thot", OK, ["3.5.3 (nar align needs it)"]),
        (
            with_imports(torchaudio=Trouble("OSError: x.so")),
            "torchaudio",
            WARN,
            ["OSError: x.so", "it is not needed here"],
        ),
        (with_imports(torchvision="0.26"), "torchvision", OK, ["0.26, loads; not needed here"]),
        (replace(with_torch(threads=2), cores=2), "threads", WARN, ["2 of 2 cores", "export OMP_NUM_THREADS=1"]),
        (
            with_torch(threads=4),
            "threads",
            OK,
            ["4 of 8 cores", "OMP_NUM_THREADS is not set", "export OMP_NUM_THREADS=1"],
        ),
        (
            replace(with_torch(threads=16), environment={"OMP_NUM_THREADS": "16"}),
            *("threads", WARN, ["(OMP_NUM_THREADS=16): more than there are"]),
        ),
        (with_imports(torch=NO_MODULE), "threads", OK, ["? of 8 cores"]),
        (SOUND, "processor", OK, ["avx2 yes, avx512 yes; bf16 in hardware yes, int8 in hardware no"]),
        (
            replace(SOUND, flags=frozenset(["avx2", "avx512_vnni"])),
            "processor",
            OK,
            ["bf16 in hardware no, int8 in hardware yes"],
        ),
        (
            replace(SOUND, flags=frozenset(["avx2", "amx_int8", "amx_bf16"])),
            "processor",
            OK,
            ["bf16 in hardware yes, int8 in hardware yes"],
        ),
        (
            replace(SOUND, flags=frozenset(["asimd", "bf16", "i8mm"])),
            "processor",
            OK,
            ["Arm; bf16 in hardware yes, int8"],
        ),
        (replace(SOUND, flags=frozenset(["sse2"])), "processor", WARN, ["avx2 no", "slow without avx2"]),
        (replace(SOUND, flags=None), "processor", OK, ["unknown"]),
        (SOUND, "engines", OK, ["int8: no (torch has no kernels", "bf16: yes", "compiled: "]),
        (
            with_imports(torch={**SOUND.imports["torch"], "int8": ["fbgemm"]}),
            "engines",
            OK,
            ["int8: yes (7 bits an input: no avx512_vnni)"],
        ),
        (replace(SOUND, flags=frozenset(["avx2"]), compiler=None), "engines", OK, ["bf16: no", "compiled: no (no C++"]),
        (replace(SOUND, free_disk=1 << 29), "disk", WARN, ["0.5 GiB free", "make room"]),
        (replace(SOUND, free_memory=1 << 30), "memory", WARN, ["1.0 GiB free", "--max-tokens"]),
        (replace(SOUND, free_memory=None), "memory", OK, ["unknown"]),
    ],
)
def test_each_trouble_has_its_verdict_and_says_what_to_do(
    facts: Facts, what: str, verdict: str, words: List[str]
) -> None:
    (found,) = records(facts, what)
    assert found.verdict == verdict and (verdict == OK or found.advice)
    assert [word for word in words if word not in str(found)] == [], str(found)


@pytest.mark.parametrize(
    ("version", "clauses", "expected"),
    [
        ("2.13.0+cpu", ">=2.6", True),
        ("2.5.1", ">=2.6", False),
        ("2.6", ">=2.6.0", True),
        ("1.3.2", "==1.3.2", True),
        ("1.3.2", "<1.3", False),
        ("1.3.2", "<1.4,>=1.3", True),
        ("1.4", "<1.4,>=1.3", False),
        ("1.3.2", "==1.*", True),
        ("2.0", "!=1.*", True),
        ("1.0.5", "~=1.0.2", True),
        ("1.1", "~=1.0.2", False),
        ("0.12.3.1", "<=0.12.2", False),
        ("5", "", True),
    ],
)
def test_versions_are_compared_as_pip_does(version: str, clauses: str, expected: bool) -> None:
    assert fits(version, clauses) == expected


def test_what_is_asked_for_depends_on_the_python_and_leaves_extras_out() -> None:
    lines = ["fairseq-fixed>=0.12; python_version >= '3.11'", 'fairseq==0.12.2 ; python_version < "3.11"', "a (>=1)"]
    lines.append("pytest; extra == 'dev'")
    assert list(checks.asked(lines, (3, 12, 0))) == [("fairseq-fixed", ">=0.12"), ("a", ">=1")]
    assert list(checks.asked(lines, (3, 10, 0))) == [("fairseq", "==0.12.2"), ("a", ">=1")]


def test_an_import_that_raises_or_kills_python_is_a_trouble_and_no_end() -> None:
    def leaves() -> None:
        sys.exit("I leave")

    looks: Dict[str, Callable[[], Any]] = {"good": lambda: 7, "bad": leaves, "fatal": os.abort, "later": lambda: 8}
    found = facts.imports(looks)
    assert found["good"] == 7 and found["bad"] == Trouble("SystemExit: I leave")
    assert found["fatal"] == Trouble("Python died while importing it, status -6")
    assert found["later"] == Trouble("not tried: Python died before")


def test_what_a_script_starts_is_read_from_its_first_lines(tmp_path: Path) -> None:
    script = tmp_path / "fairseq-train"
    assert facts.starter(script) is None
    for beginning in ("#!/e/bin/python3.11\nimport", '#!/bin/sh\n\'\'\'exec\' "/e/bin/python3.11" "$0" "$@"\n'):
        script.write_text(beginning)
        assert facts.starter(script) == "/e/bin/python3.11"
    script.write_bytes(b"\x7fELF\xff")
    assert facts.starter(script) == "unknown"


def doctored(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], facts: Facts) -> List[str]:
    """What the verb prints of these facts, and its status as the last line."""
    monkeypatch.setattr("nar_tools.commands.doctor.gather", lambda: facts)
    status = 0
    try:
        cli.main(["doctor"])
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        status = ended.code
    return [*capsys.readouterr().out.splitlines(), str(status)]


def test_the_status_is_1_where_anything_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctored(monkeypatch, capsys, SOUND)[-2:] == ["20 ok, 0 warn, 0 FAIL", "0"]
    assert doctored(monkeypatch, capsys, replace(SOUND, free_disk=0))[-2:] == ["19 ok, 1 warn, 0 FAIL", "0"]
    said = doctored(monkeypatch, capsys, hosted())
    assert said[-2:] == ["19 ok, 0 warn, 1 FAIL", "1"]
    assert "FAIL  host: nothing provides the package fairseq  -> bash scripts/install.sh" in said


def test_it_works_where_nothing_is_installed() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); from nar_tools import cli; cli.main(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr == ""
    for words in ("host: nothing provides", "torch: does not import", "fairseq: does not import", "numpy: missing"):
        assert f"FAIL  {words}" in done.stdout
    assert "FAIL  nar_plugin: does not import: ModuleNotFoundError" in done.stdout


def test_it_finds_this_installation_sound() -> None:
    found = facts.gather()
    assert [str(record) for record in checks.verdicts(found) if record.verdict == FAIL] == []
    assert found.imports["nar_plugin"]["folder"] == str(ROOT / "nar_plugin")
