"""The verdicts of ``nar doctor``: each check judges the facts of an installation and says what to do."""

import re
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

from .facts import UNUSED, Facts, Trouble, name_of

OK, WARN, FAIL = "ok", "warn", "FAIL"
INSTALL = "bash scripts/install.sh"
TESTED = ((3, 11), (3, 12))
OLDEST = (3, 10)
WANTED_TASK, WANTED_ARCH = "translation_nar", "latent_transformer"
PACKAGES = ("numpy", "omegaconf", "hydra-core", "sacrebleu", "sacremoses", "subword-nmt")
OPTIONAL = {"sil-thot": "nar align", "ctranslate2": "nar benchmark --engine ctranslate2"}
"""What only a verb needs."""
KNOWN_BAD = (
    # distribution, versions, from this Python on, what happens
    ("fairseq", "<=0.12.2", (3, 11), "does not import on Python 3.11 and later"),
    ("hydra-core", "<1.3", (3, 11), "does not import on Python 3.11 and later"),
)
"""Mutable defaults of dataclasses, which Python refuses since 3.11."""
GIB = 1 << 30


class Record(NamedTuple):
    verdict: str
    what: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:4}  {self.what}: {self.found}" + (f"  -> {self.advice}" if self.advice else "")


def numbers(version: str) -> Tuple[int, ...]:
    """``2.13.0+cpu`` as (2, 13, 0, 0, 0): what comes before the first letter, to be compared."""
    found = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in found[0].split(".")] if found else []
    return tuple([*parts, 0, 0, 0, 0, 0][:5])


def fits(version: str, clauses: str) -> bool:
    """Is a version one of ``>=2.0,<3``? Letters (rc1, +cpu) are left out of account."""
    for operator, wanted in re.findall(r"([<>=!~]=?)\s*([\w.*]+)", clauses):
        ours, theirs = numbers(version), numbers(wanted)
        series = ours[: wanted.count(".")] == theirs[: wanted.count(".")]
        verdicts = {
            "==": series if wanted.endswith(".*") else ours == theirs,
            "!=": not series if wanted.endswith(".*") else ours != theirs,
            ">=": ours >= theirs,
            "<=": ours <= theirs,
            "<": ours < theirs,
            ">": ours > theirs,
            "~=": ours >= theirs and series,
        }
        if not verdicts.get(operator, True):
            return False
    return True


def asked(requirements: Iterable[str], python: Tuple[int, ...]) -> Iterator[Tuple[str, str]]:
    """(distribution, clauses) of what is asked for on this Python, without extras."""
    for line in requirements:
        wish, _, marker = line.partition(";")
        on = re.search(r"python_version\s*([<>=!]+)\s*['\"]([\d.]+)", marker)
        is_other = on and not fits(f"{python[0]}.{python[1]}", on[1] + on[2])
        name = re.match(r"\s*([\w.-]+)", wish)
        if name and "extra" not in marker and not is_other:
            yield name_of(name[1]), wish[name.end() :].strip(" ()")


def python(facts: Facts) -> Record:
    found = ".".join(map(str, facts.python))
    if facts.python[:2] in TESTED:
        return Record(OK, "Python", f"{found}, {facts.executable}")
    advice = f"PYTHON=python3.12 {INSTALL}"
    if facts.python[:2] < OLDEST:
        return Record(FAIL, "Python", f"{found}: torch 2.6 asks for 3.10 or later", advice)
    return Record(WARN, "Python", f"{found}: 3.11 and 3.12 are tested", advice)


def host(facts: Facts) -> Record:
    """Which distribution the package ``fairseq`` comes from."""
    found = ", ".join(f"{name} {facts.versions.get(name, '?')}" for name in facts.hosts)
    if not facts.hosts:
        if facts.host_folder:
            return Record(WARN, "host", f"fairseq in {facts.host_folder}, of no distribution", f"{INSTALL}, to be sure")
        return Record(FAIL, "host", "nothing provides the package fairseq", INSTALL)
    if len(facts.hosts) > 1:
        advice = f"pip uninstall -y {' '.join(facts.hosts)}; {INSTALL}"
        return Record(FAIL, "host", f"{found}: installed over one another", advice)
    wanted = [name for name, _ in asked(facts.requirements.get("nar_plugin", []), facts.python) if "fairseq" in name]
    if wanted and facts.hosts[0] not in wanted:
        advice = f"pip uninstall -y {facts.hosts[0]}; {INSTALL}"
        return Record(WARN, "host", f"{found}: nar_plugin asks for {wanted[0]}", advice)
    return Record(OK, "host", found)


def fairseq(facts: Facts) -> Record:
    found = facts.imports.get("fairseq")
    if isinstance(found, Trouble):
        return Record(FAIL, "fairseq", f"does not import: {found.text}", f"{INSTALL}; see FAIL and warn of other lines")
    return Record(OK, "fairseq", f"imports, version {found}")


def torch(facts: Facts) -> Record:
    found = facts.imports.get("torch")
    if not isinstance(found, dict):
        reason = found.text if isinstance(found, Trouble) else "not there"
        return Record(FAIL, "torch", f"does not import: {reason}", INSTALL)
    build = f"built for CUDA {found['cuda']}" if found["cuda"] else "built for the CPU"
    gpus = f"GPU: {', '.join(found['gpus'])}" if found["gpus"] else "no GPU"
    said = f"{found['version']}, {build}, {gpus}"
    if not fits(found["version"], ">=2.6"):
        return Record(FAIL, "torch", f"{said}: 2.6 or later is needed", f"pip install 'torch>=2.6', or {INSTALL}")
    if facts.driver and not found["gpus"]:
        advice = "torch and driver must agree on CUDA: see nvidia-smi" if found["cuda"] else "install a torch with CUDA"
        return Record(WARN, "torch", f"{said}, though nvidia-smi is here", f"{advice}; nothing to do without a GPU")
    return Record(OK, "torch", said)


def package(facts: Facts, name: str) -> Record:
    """One dependency against what the plugin and the host ask of it."""
    version = facts.versions.get(name)
    wishes = [
        (who, clauses)
        for who, lines in facts.requirements.items()
        for wish, clauses in asked(lines, facts.python)
        if wish == name
    ]
    if not version:
        return Record(FAIL, name, "missing", f"pip install '{name}{wishes[0][1] if wishes else ''}', or {INSTALL}")
    for who, clauses in wishes:
        if not fits(version, clauses):
            verdict = FAIL if name_of(who) == "nar-plugin" else WARN
            return Record(verdict, name, f"{version}, but {who} asks for {clauses}", f"pip install '{name}{clauses}'")
    wanted = ", ".join(f"{who} asks for {clauses}" for who, clauses in wishes if clauses)
    return Record(OK, name, f"{version} ({wanted})" if wanted else version)


def packages(facts: Facts) -> List[Record]:
    return [package(facts, name) for name in PACKAGES]


def optional(facts: Facts) -> List[Record]:
    """For information: what can be had without them, most users want nothing more."""
    versions = {name: facts.versions.get(name) for name in OPTIONAL}
    return [
        Record(OK, name, f"{version} ({OPTIONAL[name]} needs it)")
        if version
        else Record(OK, name, f"not there; only {OPTIONAL[name]} needs it", f"pip install {name}, for that")
        for name, version in versions.items()
    ]


def known_bad(facts: Facts) -> List[Record]:
    """Combinations that cannot work, whatever asks for them."""
    found = []
    for name, clauses, since, what in KNOWN_BAD:
        version = facts.versions.get(name)
        if version and fits(version, clauses) and facts.python[:2] >= since:
            found.append(Record(FAIL, "combination", f"{name} {version} {what}", f"pip uninstall -y {name}; {INSTALL}"))
    if fits(facts.versions.get("numpy", "0"), ">=2") and "fairseq" in facts.hosts and facts.python[:2] < (3, 11):
        advice = f"pip install 'numpy<2', or Python 3.11 or 3.12 and {INSTALL}"
        found.append(Record(WARN, "combination", "fairseq 0.12.2 was written for numpy 1", advice))
    return found


def plugin(facts: Facts) -> Record:
    found = facts.imports.get("nar_plugin")
    if not isinstance(found, dict):
        reason = found.text if isinstance(found, Trouble) else "not there"
        advice = "first what FAILs above" if isinstance(facts.imports.get("fairseq"), Trouble) else INSTALL
        return Record(FAIL, "nar_plugin", f"does not import: {reason}", advice)
    missing = [name for name, names in ((WANTED_TASK, "tasks"), (WANTED_ARCH, "archs")) if name not in found[names]]
    if missing:
        what = f"{found['folder']} does not register {' and '.join(missing)}"
        return Record(FAIL, "nar_plugin", what, f"is it the right folder? pip uninstall -y nar_plugin; {INSTALL}")
    return Record(OK, "nar_plugin", f"{found['folder']}, registers {WANTED_TASK} and its architectures")


def other_plugin(facts: Facts) -> List[Record]:
    """fairseq refuses a --user-dir whose name was imported from another folder: "not globally unique"."""
    found = facts.imports.get("nar_plugin")
    if not isinstance(found, dict) or not facts.local_plugin or Path(found["folder"]).resolve() == facts.local_plugin:
        return []
    advice = f"--user-dir {found['folder']}, or pip install -e . here"
    return [Record(WARN, "--user-dir", f"{facts.local_plugin} is not the nar_plugin that is installed", advice)]


def programs(facts: Facts) -> Record:
    """fairseq-train must start the Python that this is."""
    bin_folder = facts.executable.parent
    if facts.trainer is None:
        other = f"; PATH leads to {facts.on_path}, of another Python" if facts.on_path else ""
        return Record(FAIL, "fairseq-train", f"not beside {facts.executable}{other}", INSTALL)
    if facts.trainer != "unknown" and Path(facts.trainer).parent.resolve() != bin_folder.resolve():
        what = f"{bin_folder / 'fairseq-train'} starts {facts.trainer}"
        return Record(FAIL, "fairseq-train", what, f"the environment was moved or copied: {INSTALL}")
    if facts.on_path is None:
        return Record(OK, "fairseq-train", f"in {bin_folder}, not on PATH", f'export PATH="{bin_folder}:$PATH"')
    if Path(facts.on_path).parent.resolve() != bin_folder.resolve():
        advice = f'export PATH="{bin_folder}:$PATH"'
        return Record(WARN, "fairseq-train", f"PATH leads to {facts.on_path}, not to {bin_folder}", advice)
    return Record(OK, "fairseq-train", facts.on_path)


def libnat(facts: Facts) -> Record:
    """For information: fairseq's own edit-based models need it, nothing here does."""
    if facts.libnat:
        return Record(OK, "libnat", f"{facts.libnat}, ready")
    compiler = f"{facts.compiler} could compile it" if facts.compiler else "no C++ compiler to make it with"
    return Record(OK, "libnat", f"not there ({compiler}); only fairseq's Levenshtein models need it")


def engines(facts: Facts) -> Record:
    """For information: what ``--engine`` can be on a CPU, and why not."""
    flags, looked_at = facts.flags or frozenset(), facts.imports.get("torch")
    kernels = looked_at.get("int8", ()) if isinstance(looked_at, dict) else ()
    bits = "8 bits" if "avx512_vnni" in flags else "7 bits an input: no avx512_vnni"
    has_bf16 = flags & {"avx512_bf16", "amx_bf16"}
    said = {
        "int8": f"yes ({bits})" if "fbgemm" in kernels else "no (torch has no kernels for this processor)",
        "bf16": "yes" if has_bf16 else "no (the processor has no bfloat16)",
        "compiled": "yes" if facts.compiler else "no (no C++ compiler: install g++)",
    }
    return Record(OK, "engines", "; ".join(f"{name}: {what}" for name, what in said.items()))


def unused(facts: Facts) -> List[Record]:
    found = [(name, facts.imports[name]) for name in UNUSED if name in facts.imports]
    return [
        Record(WARN, name, f"does not load beside this torch: {trouble.text}", "nothing to do: it is not needed here")
        if isinstance(trouble, Trouble)
        else Record(OK, name, f"{trouble}, loads; not needed here")
        for name, trouble in found
    ]


def threads(facts: Facts) -> Record:
    looked_at = facts.imports.get("torch")
    count = looked_at["threads"] if isinstance(looked_at, dict) else 0
    settings = " ".join(f"{name}={value}" for name, value in facts.environment.items()) or "OMP_NUM_THREADS is not set"
    said = f"torch takes {count or '?'} of {facts.cores} cores a process ({settings})"
    if count > facts.cores:
        return Record(WARN, "threads", f"{said}: more than there are", "export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1")
    if count > 1:
        advice = (
            "export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 where several processes run at once: else many times slower"
        )
        return Record(WARN if facts.cores <= 4 else OK, "threads", said, advice)
    return Record(OK, "threads", said)


def processor(facts: Facts) -> Record:
    if facts.flags is None:
        return Record(OK, "processor", "features unknown")

    def has(*names: str) -> str:
        return "yes" if facts.flags and facts.flags.intersection(names) else "no"

    vectors = ", ".join(f"{name} {has(flag)}" for name, flag in (("avx2", "avx2"), ("avx512", "avx512f")))
    is_arm = "asimd" in facts.flags
    bf16 = has("avx512_bf16", "amx_bf16", "bf16")
    int8 = has("avx512_vnni", "avx_vnni", "amx_int8", "i8mm")
    said = f"{'Arm' if is_arm else vectors}; bf16 in hardware {bf16}, int8 in hardware {int8}"
    if not is_arm and "avx2" not in facts.flags:
        return Record(WARN, "processor", said, "torch is slow without avx2: use another machine, or a GPU")
    return Record(OK, "processor", said)


def disk(facts: Facts) -> Record:
    said = f"{facts.free_disk / GIB:.1f} GiB free in this folder"
    if facts.free_disk < GIB:
        return Record(WARN, "disk", said, "make room: checkpoints and data take gigabytes")
    return Record(OK, "disk", said)


def memory(facts: Facts) -> Record:
    if facts.free_memory is None:
        return Record(OK, "memory", "unknown")
    said = f"{facts.free_memory / GIB:.1f} GiB free"
    if facts.free_memory < 2 * GIB:
        return Record(WARN, "memory", said, "end other programs, or smaller batches: --max-tokens")
    return Record(OK, "memory", said)


def one(check: Callable[[Facts], Record]) -> Callable[[Facts], Sequence[Record]]:
    return lambda facts: [check(facts)]


CHECKS: Tuple[Callable[[Facts], Sequence[Record]], ...] = (
    one(python),
    one(host),
    known_bad,
    one(torch),
    one(fairseq),
    packages,
    optional,
    one(plugin),
    other_plugin,
    one(programs),
    one(libnat),
    unused,
    one(threads),
    one(processor),
    one(engines),
    one(disk),
    one(memory),
)


def verdicts(facts: Facts) -> Iterator[Record]:
    for check in CHECKS:
        yield from check(facts)
