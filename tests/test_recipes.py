"""Every command of every README and recipe parses with the parser of the program that it is for."""

import argparse
import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Set, Tuple
from unittest import mock

import pytest
from fairseq import options
from fairseq.models import MODEL_REGISTRY

import nar_plugin  # noqa: F401  (registers what the commands name)
from nar_plugin.architectures.base import DecodingModel
from nar_plugin.methods.options import UNMASKINGS
from nar_tools import cli
from nar_tools.errors import ToolError
from nar_tools.measure import entrants
from nar_tools.measure.interactive import Interactive
from nar_tools.measure.system import System

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
READMES = sorted(path for path in ROOT.rglob("README.md") if not {".venv", "out"} & set(path.parts))
RECIPES = sorted(EXAMPLES.glob("*/run.sh"))
QUICKSTART, MULTI30K, IMAGES = (EXAMPLES / name / "run.sh" for name in ("quickstart", "multi30k", "super_resolution"))
TRANSLATIONS = [recipe for recipe in RECIPES if recipe != IMAGES]
CORPORA = [recipe for recipe in TRANSLATIONS if recipe not in (QUICKSTART, MULTI30K)]
METHODS = {path.stem for path in EXAMPLES.glob("methods/*.sh")} - {"teacher"}
WHOLE = {"METHODS": "all", "RETRAIN": "1"}
"""Variables with which every recipe does everything."""
BARE = {"RETRAIN": "1", "GPUS": "0"}
SHORT = ("download", "prepare", "teacher", "distil", "students", "lengths", "base", "engines", "measure", "report")
"""Steps of Multi30k from archives to a table."""
PARSERS: Dict[str, Callable[[], object]] = {
    "fairseq-preprocess": options.get_preprocessing_parser,
    "fairseq-train": options.get_training_parser,
    "fairseq-generate": options.get_generation_parser,
    "fairseq-interactive": options.get_interactive_generation_parser,
}
Command = List[str]


def name_of(recipe: Path) -> str:
    return recipe.parent.name


def commands_in(line: str) -> List[Command]:
    """The commands of a line, pipes taken apart; without variables before them, redirections and comments."""
    commands: List[Command] = [[]]
    is_file = False
    for word in shlex.split(line, comments=True):
        if word in ("|", "&&", ";"):
            commands.append([])
        elif word == "2>/dev/null":
            continue
        elif word in (">", "2>", "<"):
            is_file = True
        elif is_file:
            is_file = False
        elif word != "2>&1" and (commands[-1] or not re.match(r"\w+=", word)):
            commands[-1].append(word)
    return [command for command in commands if command]


def commands_of(text: str) -> List[Command]:
    """The commands in the bash blocks of a README."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [command for line in lines for command in commands_in(line)]


def methods_of(recipe: Path) -> Set[str]:
    return {"blockwise_transformer"} if recipe == IMAGES else METHODS


def steps_of(recipe: Path) -> Set[str]:
    """What may be named behind a recipe."""
    files = [EXAMPLES / "recipe.sh", EXAMPLES / "em.sh", *recipe.parent.glob("*.sh")]
    steps = {step for file in files for step in re.findall(r"^ *do_(\w+)\(\)", file.read_text(), re.MULTILINE)}
    return steps | methods_of(recipe)


def assert_parses(command: Command) -> None:
    """Raises or exits where the program would refuse the flags; programs of others are not our concern.

    Of commands that differ in paths and digits alone one is parsed.
    """
    program, *flags = command
    shape = (program, *(re.sub(r"\d+", "0", re.sub(r"\S*/\S*", "/", word)) for word in flags))
    if shape in PARSED and program not in ("bash", "python"):
        return
    if program == "fairseq-generate":
        System.configuration(flags)
    elif program in PARSERS:
        flags = [str(ROOT / "nar_plugin") if flag == "nar_plugin" else flag for flag in flags]
        with mock.patch.object(sys, "argv", [program, *flags]):
            if program == "fairseq-preprocess":
                PARSERS[program]().parse_args(flags)
            else:
                options.parse_args_and_arch(PARSERS[program](), input_args=flags)
    elif program in ("bash", "python") and flags[0].endswith((".sh", ".py")):
        file = ROOT / flags[0]
        assert file.exists(), f"{flags[0]} does not exist"
        if file.name == "run.sh":
            assert set(flags[1:]) <= steps_of(file), f"{shlex.join(command)}: no such step"
    elif program == "nar":
        assert_verb_parses(flags[0], flags[1:])
    PARSED.add(shape)


PARSED: Set[Tuple[str, ...]] = set()
ARCHITECTURES = tuple(name for name, model in MODEL_REGISTRY.items() if issubclass(model, DecodingModel))


class Parsed(BaseException):
    """The flags were accepted, and the program need not go on; some are left to others."""

    def __init__(self, left: Sequence[str]) -> None:
        self.left = list(left)


def assert_verb_parses(verb: str, flags: Sequence[str]) -> None:
    """Runs a verb of ``nar`` until its flags are parsed, and parses those that it hands on to fairseq."""
    if verb == "accuracy":
        System.configuration(flags)
        return
    with pytest.raises(Parsed) as parsed:
        run_until_parsed(verb, flags)
    left, behind = parsed.value.left, flags[list(flags).index("--") + 1 :] if "--" in flags else ()
    if verb == "show":
        Interactive.configuration(left)
    elif verb in ("codes", "latents", "profile"):
        System.configuration(left)
    else:
        assert not left, f"nar {verb} knows no {left[0]}"
    if verb == "train":
        assert_parses(list(behind))
    if verb in ("distill", "em"):
        assert_parses(["fairseq-generate", "data", "--path", "teacher.pt", *behind])


def run_until_parsed(verb: str, flags: Sequence[str]) -> None:
    parser = argparse.ArgumentParser
    depth = 0

    def stop_after(parse: Callable[..., Any]) -> Callable[..., Any]:
        """The outermost call alone: one kind calls the other, and both those of subcommands."""

        def parse_and_stop(*args: Any, **options: Any) -> Any:
            nonlocal depth
            depth += 1
            found = parse(*args, **options)
            depth -= 1
            if depth == 0:
                raise Parsed(found[1] if isinstance(found, tuple) else ())
            return found

        return parse_and_stop

    with (
        mock.patch.object(parser, "parse_args", stop_after(parser.parse_args)),
        mock.patch.object(parser, "parse_known_args", stop_after(parser.parse_known_args)),
    ):
        cli.main([verb, *flags])


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_readme_parses(readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for command in commands_of(readme.read_text(encoding="utf-8")):
        assert_parses(command)


@pytest.mark.parametrize(
    "command",
    [
        "nar report results.json --nothing",
        "nar release eat folder",
        "nar nothing",
        "nar prepare apply --input a --lang de --codes codes --output b --nothing",
        "nar distill --data data --nothing",
        "nar distill --data data -- --nothing",
        "nar show data --path model.pt --nothing",
        "nar train student --log log -- fairseq-train data --user-dir nar_plugin --arch mask_predict --nothing",
        "bash examples/quickstart/run.sh nothing",
    ],
)
def test_a_wrong_word_of_a_command_is_found(command: str) -> None:
    with pytest.raises((SystemExit, AssertionError, ToolError)):
        assert_parses(shlex.split(command))


def test_a_wrong_flag_in_a_readme_is_found() -> None:
    (command,) = commands_of(
        "```bash\nfairseq-train data --user-dir nar_plugin --arch mask_predict --no-such-flag\n```"
    )
    with pytest.raises(SystemExit):
        assert_parses(command)


def test_lines_are_taken_apart() -> None:
    line = 'A=1 B="2 3" nar one --x=1 2>&1 | tee -a "a file" > /dev/null && nar two < in # three'
    assert commands_in(line) == [["nar", "one", "--x=1"], ["tee", "-a", "a file"], ["nar", "two"]]


def called(recipe: Path, *steps: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **variables}
    return subprocess.run(
        ["bash", str(recipe), *steps], env=environment, capture_output=True, text=True, timeout=120, cwd=ROOT
    )


def recorded(recipe: Path, out: Path, *steps: str, **more: str) -> List[Command]:
    """What a call of a recipe runs, with stubs in place of the programs, under more variables."""
    record = out / "commands"
    before = len(list(record.iterdir())) if record.exists() else 0
    stubs = {"BASH_ENV": str(ROOT / "tests" / "recipe_stubs.sh"), "RECORD": str(record)}
    done = called(recipe, *steps, **{**stubs, "OUT": str(out), "CHECKSUMS": os.devnull, **more})
    assert done.returncode == 0, done.stderr[-2000:]
    return [path.read_text(encoding="utf-8").split("\0")[:-1] for path in sorted(record.iterdir())[before:]]


def program(command: Command) -> str:
    return f"nar {command[1]}" if command[0] == "nar" else Path(command[0]).name


def programs(commands: List[Command]) -> List[str]:
    return [program(command) for command in commands]


def option(command: Command, name: str) -> str:
    """Its last value, which is the one that counts."""
    return command[len(command) - command[::-1].index(name)]


@pytest.mark.parametrize("recipe", TRANSLATIONS, ids=name_of)
def test_every_command_of_a_recipe_parses_and_a_second_run_repeats_nothing(recipe: Path, tmp_path: Path) -> None:
    commands = recorded(recipe, tmp_path, **WHOLE)
    assert {"fairseq-preprocess", "fairseq-train", "nar train", "nar distill"} <= set(programs(commands))
    for command in commands:
        assert_parses(command)
        if program(command) == "nar benchmark":
            assert_systems_parse(command)
    assert_every_architecture_is_trained(commands, name_of(recipe) if recipe in CORPORA else "small")
    last = "nar score" if recipe in CORPORA else "nar report"
    again = recorded(recipe, tmp_path, **WHOLE)
    assert programs(again) == [last], "a finished step was done again"
    others = {"CUDA_VISIBLE_DEVICES": "0,1,2", "GPUS": "2", "JOBS": "7", "MAX_TOKENS": "1000", "AT_ONCE": "3"}
    machines = {"MACHINES": "2", "MASTER": "host:29500"}
    again = recorded(recipe, tmp_path, **WHOLE, **others, **machines)
    assert programs(again) == [last], "other devices are no reason"
    if recipe == MULTI30K:
        assert_seeds_are_trained_and_measured(commands)
        next(tmp_path.rglob("lanmt_refiner_energy-distilled-seed3.pt")).unlink()
        with pytest.raises(AssertionError, match="gap-lanmt_refiner needs .*energy-distilled-seed3"):
            recorded(recipe, tmp_path, "measure", **WHOLE)


def assert_systems_parse(benchmark: Command) -> None:
    skipped = {"--system": 2, "--teacher": 1}
    systems = [benchmark[i + skipped[word]] for i, word in enumerate(benchmark) if word in skipped]
    assert systems
    for flags in systems:
        assert shlex.split(flags)[0] == "--train"
        decode = entrants.entrant_of("a", flags.replace("LENGTH", "10")).flags
        assert_parses(["fairseq-generate", "data", *shlex.split(decode)])


def assert_every_architecture_is_trained(commands: List[Command], size: str) -> None:
    archs = {option(command, "--arch") for command in commands if command[0] == "fairseq-train"}
    assert {f"{name}_{size}" for name in ARCHITECTURES} <= archs, "a file in methods/ is missing"


def assert_seeds_are_trained_and_measured(commands: List[Command]) -> None:
    trainings = {Path(option(each, "--save-dir")).name: each for each in commands if each[0] == "fairseq-train"}
    measured = " ".join(word for command in commands if program(command) == "nar benchmark" for word in command)
    seeded = {name: command for name, command in trainings.items() if "-seed" in name}
    assert seeded
    for name, command in seeded.items():
        plain = trainings[name[: name.index("-seed")]]
        assert option(command, "--seed") == name[name.index("-seed") + 5 :] != option(plain, "--seed")
        assert f"{name}.pt" in measured


def printed(recipe: Path, out: Path, *steps: str, **variables: str) -> List[Command]:
    """The commands of a dry run, which must be lines that bash reads, and must do nothing."""
    done = called(recipe, *steps, DRY_RUN="1", OUT=str(out), **variables)
    assert done.returncode == 0, done.stderr[-2000:]
    subprocess.run(["bash", "-n"], input=done.stdout, check=True, text=True)
    assert not out.exists(), "it did something"
    lines = [line for line in done.stdout.splitlines() if line and not line.startswith("#")]
    return [command for line in lines for command in commands_in(line)]


@pytest.mark.parametrize("recipe", TRANSLATIONS, ids=name_of)
def test_a_dry_run_prints_the_commands_and_does_nothing(recipe: Path, tmp_path: Path) -> None:
    commands = printed(recipe, tmp_path / "out", **WHOLE)
    for command in commands:
        assert_parses(command)
    assert_every_architecture_is_trained(commands, name_of(recipe) if recipe in CORPORA else "small")
    assert {"fairseq-preprocess", "nar distill", "nar average"} <= set(programs(commands))


def test_a_dry_run_prints_what_would_be_run(tmp_path: Path) -> None:
    """Word for word, but for `nar train`, without which the printed command is fairseq's own."""
    out, variables = tmp_path / "out", {"METHODS": "mask_predict", "AT_ONCE": "1", "CHECKSUMS": os.devnull}
    known = {"nar", "fairseq-preprocess", "fairseq-train", "fairseq-generate", "make_corpus.py", "python"}
    before = [command for command in printed(QUICKSTART, out, **variables) if command[0] in known]
    run = [command for command in recorded(QUICKSTART, out, **variables) if program(command) != "nar train"]
    assert [command[command[0] == "python" :] for command in before] == run


@pytest.mark.parametrize(
    ("recipe", "cluster"), [(CORPORA[0], {"MASTER": "host:29500"}), (CORPORA[-1], {"SLURM_JOB_ID": "1"})]
)
def test_a_dry_run_prints_the_commands_for_many_gpus(recipe: Path, cluster: Dict[str, str], tmp_path: Path) -> None:
    many = {"GPUS": "8", "MACHINES": "2", "PRECISION": "bf16", **cluster}
    commands = printed(recipe, tmp_path / "out", **many)
    trainings = [command for command in commands if "fairseq-train" in command]
    starts = {command[0] for command in trainings}
    assert starts == {"fairseq-train", "srun" if "SLURM_JOB_ID" in cluster else "torchrun"}, "small ones by one machine"
    assert len(trainings) >= 4 and all("--bf16" in command and "--cpu" not in command for command in trainings)
    for command in commands:
        assert_parses(command[command.index("fairseq-train") if command in trainings else 0 :])
    assert not any("find-unused" in word for command in commands for word in command)


@pytest.mark.parametrize("recipe", [QUICKSTART, MULTI30K], ids=name_of)
def test_a_step_whose_input_was_made_anew_is_done_again(recipe: Path, tmp_path: Path) -> None:
    variables = {"METHODS": "mask_predict", "RETRAIN": "1"}
    steps = SHORT if recipe == MULTI30K else ()
    recorded(recipe, tmp_path, *steps, **variables)
    os.utime(tmp_path / "models" / "teacher.pt", (1, 1))
    commands = recorded(recipe, tmp_path, *steps, **variables)
    again = programs(commands)
    saved = {Path(option(command, "--save-dir")).name for command in commands if command[0] == "fairseq-train"}
    assert {"mask_predict-raw", "mask_predict-distilled"} <= saved, "the teacher that they begin as is another"
    assert "nar distill" in again and "nar benchmark" in again
    assert "make_corpus.py" not in again and "nar fetch" not in again
    (tmp_path / "codes").write_text("cut")
    assert "nar prepare" in programs(recorded(recipe, tmp_path, *steps, **variables))


@pytest.mark.parametrize("recipe", [QUICKSTART, MULTI30K], ids=name_of)
def test_every_rule_of_unmasking_is_measured_at_five_settings(recipe: Path, tmp_path: Path) -> None:
    steps = ("download", "prepare", "teacher", "distil", "students", "unmask")
    commands = recorded(recipe, tmp_path, *steps, METHODS="mask_predict", RETRAIN="1")[-7:]
    assert programs(commands) == ["nar benchmark"] * len(UNMASKINGS) + ["nar assemble", "nar report"]
    systems = []
    for command in commands:
        assert_parses(command)
        if program(command) == "nar benchmark":
            assert_systems_parse(command)
            systems += [command[i + 1 : i + 3] for i, word in enumerate(command) if word == "--system"]
    settings: Dict[str, Set[str]] = {}
    for name, flags in systems:
        words = shlex.split(flags)
        assert name.startswith(f"cmlm-{option(words, '--unmask')}-") and option(words, "--train") == "distilled"
        value = option(words, "--unmask-threshold" if "--unmask-threshold" in words else "--iter-decode-max-iter")
        settings.setdefault(option(words, "--unmask"), set()).add(value)
    assert {rule: len(values) for rule, values in settings.items()} == dict.fromkeys(UNMASKINGS, 5)


def warm_started(recipe: Path, out: Path, **variables: str) -> Dict[str, bool]:
    """Of each training of a recipe, whether it begins with the weights of the recipe's teacher."""
    trainings = [command for command in printed(recipe, out, **WHOLE, **variables) if command[0] == "fairseq-train"]
    for command in trainings:
        assert "--warm-start" not in command or option(command, "--warm-start") == str(out / "models" / "teacher.pt")
    return {Path(option(command, "--save-dir")).name: "--warm-start" in command for command in trainings}


@pytest.mark.parametrize("recipe", [QUICKSTART, MULTI30K], ids=name_of)
def test_students_of_small_corpora_begin_as_their_teacher_unless_told_otherwise(recipe: Path, tmp_path: Path) -> None:
    """But what learns by heart, what stands on a student, and the second part of a training."""
    found = warm_started(recipe, tmp_path / "out")
    warm = {name for name, is_warm in found.items() if is_warm}
    assert not [name for name in warm if "-cold-" in name]
    methods = {"ctc", "mask_predict", "iterative_refinement", "latent_transformer", "latent_codes", "lanmt_continuous"}
    methods.add("fertility_nat")
    assert {next(method for method in methods if name.startswith(method)) for name in warm} == methods
    assert not [name for name in warm if "overfit" in name or name.startswith("base-")]
    assert {"mask_predict-raw", "mask_predict-distilled"} <= warm
    assert {name.removesuffix("-first") for name in found if name.endswith("-first")} & warm == set()
    found = warm_started(recipe, tmp_path / "out", WARM_START="0")
    assert not [name for name, is_warm in found.items() if is_warm and not re.search("-(warm|frozen)-", name)]


@pytest.mark.parametrize("recipe", CORPORA, ids=name_of)
def test_students_of_the_papers_corpora_begin_as_in_the_papers(recipe: Path, tmp_path: Path) -> None:
    """From random weights; Gu et al. 2018 take the teacher's encoder."""
    found = warm_started(recipe, tmp_path / "out")
    assert {name for name, is_warm in found.items() if is_warm} == {"fertility_nat-distilled"}


def test_a_start_that_there_is_not_is_one_line(tmp_path: Path) -> None:
    done = called(QUICKSTART, "students", OUT=str(tmp_path / "out"), WARM_START="yes")
    assert done.returncode == 2 and "WARM_START is 0 or 1, not yes" in done.stderr


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """What stands in for the released teacher."""
    folder = tmp_path / "release"
    folder.mkdir()
    for name in ("teacher.pt", "codes", "dict.txt", "distilled.json", "manifest.json"):
        (folder / name).write_text(name)
    (folder / "teacher.curve.json").write_text("[]")
    (folder / "train.en.gz").write_bytes(gzip.compress(b"a house\n"))
    return folder


def test_multi30k_begins_with_the_released_teacher(release: Path, tmp_path: Path) -> None:
    variables = {"RELEASE": str(release), "STUDENTS": str(tmp_path / "none"), "METHODS": "mask_predict"}
    out = tmp_path / "out"
    commands = recorded(MULTI30K, out, *SHORT, **variables)
    for command in commands:
        assert_parses(command)
    assert ["nar", "release", "check", str(release)] in commands
    texts = [str(out / "bpe" / f"train.{lang}") for lang in ("de", "en")]
    assert ["nar", "release", "check", str(release), "--made-from", *texts] in commands
    assert "nar distill" not in programs(commands)
    assert not any(command[:3] == ["nar", "prepare", "learn"] for command in commands)
    saved = [option(command, "--save-dir") for command in commands if command[0] == "fairseq-train"]
    assert str(out / "models" / "teacher") not in saved and str(out / "models" / "mask_predict-distilled") in saved
    first = next(command for command in commands if command[0] == "fairseq-preprocess")
    assert option(first, "--srcdict") == str(release / "dict.txt")
    assert (out / "codes").read_text() == "codes" and (out / "distilled" / "train.en").read_text() == "a house\n"
    assert programs(recorded(MULTI30K, out, *SHORT, **variables)) == ["nar report"]
    (release / "codes").write_text("of a newer release")
    again = programs(recorded(MULTI30K, out, *SHORT, **variables))
    assert "nar prepare" in again and "fairseq-train" in again


def test_ways_of_students_are_measured_under_every_engine_and_starts_are_what_they_say(tmp_path: Path) -> None:
    """On distilled data alone; bfloat16 is asked for where the processor has it."""
    commands = printed(
        MULTI30K, tmp_path / "out", "measure", "starts", METHODS="mask_predict latent_transformer", **BARE
    )
    rows = [command[i + 1 : i + 3] for command in commands for i, word in enumerate(command) if word == "--system"]
    flags = {name: shlex.split(text) for name, text in rows}
    for engine in ("int8", "compiled"):
        assert (
            option(flags[f"cmlm-t4-{engine}"], "--engine")
            == option(flags[f"lanmt-prior-{engine}"], "--engine")
            == engine
        )
    assert "--engine" not in flags["cmlm-t4"] and not [
        name for name in flags if "raw" in name and name.endswith("int8")
    ]
    trainings = {Path(option(each, "--save-dir")).name: each for each in commands if each[0] == "fairseq-train"}
    frozen = {name for name, command in trainings.items() if "--freeze" in command}
    assert frozen == {"latent_transformer-frozen-1"} and len(trainings) == 8
    assert not [name for name, command in trainings.items() if "--cpu-autocast" in command], "depends on the processor"


def test_released_students_are_taken_unless_they_are_to_be_trained(release: Path, tmp_path: Path) -> None:
    students, out = tmp_path / "students", tmp_path / "out"
    variables = {"RELEASE": str(release), "STUDENTS": str(students), "METHODS": "mask_predict"}
    steps = ("download", "prepare", "teacher", "distil", "students")
    students.mkdir()
    (students / "mask_predict-distilled.pt").write_text("weights")
    (students / "mask_predict-distilled.curve.json").write_text("[]")

    def trained(**more: str) -> Set[str]:
        found = recorded(MULTI30K, out, *steps, **variables, **more)
        return {Path(option(command, "--save-dir")).name for command in found if command[0] == "fairseq-train"}

    assert trained() == {"mask_predict-raw"}
    assert (out / "models" / "mask_predict-distilled.pt").read_text() == "weights" and trained() == set()
    assert trained(RETRAIN="students") == {"mask_predict-distilled"}
    published = recorded(MULTI30K, out, "publish", **variables)
    assert programs(published)[-1] == "nar release" and {path.name for path in students.iterdir()} == {
        *(f"mask_predict-{data}.{end}" for data in ("distilled", "raw") for end in ("pt", "curve.json", "txt")),
        *("manifest.json", "sample.de", "sample.en"),
    }
    lines = [word for word in published[-1] if word.startswith("--command=")]
    assert [line.split()[0] for line in lines] == ["--command=fairseq-train", *["--command=nar"] * 2] * 2
    texts = [str(out / name) for name in ("models/teacher.pt", "distilled/train.de", "distilled/train.en")]
    assert published[-1][published[-1].index("--made-from") + 1 :][:3] == texts
    (students / "mask_predict-raw.pt").write_text("of a newer release")
    recorded(MULTI30K, out, *steps, **variables)
    assert (out / "models" / "mask_predict-raw.pt").read_text() == "of a newer release"


@pytest.mark.parametrize(
    ("variables", "done_again", "not_again"),
    [
        ({"MERGES": "100"}, "nar prepare", "nar fetch"),
        ({"TEST": "test_2017_flickr"}, "nar fetch", "nar assemble"),
        ({"URL": "http://elsewhere"}, "nar fetch", "nar assemble"),
        ({"ALLOW_NOISE": "1"}, "nar benchmark", "fairseq-train"),
        ({"SEED": "2"}, "fairseq-train", "nar prepare"),
    ],
)
def test_what_depends_on_a_variable_is_done_again_when_it_changes(
    variables: Dict[str, str], done_again: str, not_again: str, tmp_path: Path
) -> None:
    one = {"METHODS": "mask_predict", "RETRAIN": "1"}
    recorded(MULTI30K, tmp_path, *SHORT, **one)
    again = programs(recorded(MULTI30K, tmp_path, *SHORT, **one, **variables))
    assert done_again in again
    if not_again != "nar assemble":  # of other files all is new
        assert not_again not in again


def test_one_method_alone(tmp_path: Path) -> None:
    """An autoregressive one: without rows of the others, and without pictures of passes."""
    commands = recorded(MULTI30K, tmp_path, METHODS="deep_shallow", RETRAIN="1")
    figures = [command for command in commands if "--figure" in command]
    assert [program(command) for command in figures] == ["nar report", "nar curve"]
    assert not {"nar show", "nar latents"} & set(programs(commands))
    assert not any(re.search("mask_predict(-|_small)", word) for command in commands for word in command)


@pytest.mark.parametrize("recipe", [QUICKSTART, MULTI30K, IMAGES, CORPORA[0]], ids=name_of)
def test_a_step_or_method_that_does_not_exist_is_one_line(recipe: Path, tmp_path: Path) -> None:
    known = "blockwise_transformer nothing"
    for steps, methods in ((["--nothing"], "all"), (["prepare", "nothing"], "all"), ([], known)):
        done = called(recipe, *steps, OUT=str(tmp_path / "out"), METHODS=methods)
        assert done.returncode == 2 and not done.stdout and len(done.stderr.splitlines()) == 1
        assert re.search("no step or method (--)?nothing", done.stderr)


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_help_names_the_steps_and_the_methods(recipe: Path, tmp_path: Path) -> None:
    done = called(recipe, "--help", OUT=str(tmp_path / "out"))
    assert done.returncode == 0 and f"bash examples/{name_of(recipe)}/run.sh [STEP...]" in done.stdout
    listed = [re.findall(r"\w+", line.split(":")[1]) for line in done.stdout.splitlines()[-3:]]
    assert set(listed[0]) | set(listed[1]) == steps_of(recipe) and set(listed[1]) == methods_of(recipe)
    assert set(listed[2]) <= set(listed[0])


RESTORED = {"super_resolution": ["sr-k6", "sr-k10"], "denoising": ["denoising-k6"], "inpainting": ["inpainting-k6"]}


@pytest.mark.parametrize("restored", RESTORED)
def test_images_are_cut_learnt_restored_and_measured(restored: str, tmp_path: Path) -> None:
    """BPD-36: each task by one variable, and a second run repeats nothing but the scores and the report."""
    folder, more = tmp_path / "images", {"RESTORE": restored, "METHODS": "all", "GPUS": "0"}
    folder.mkdir()
    commands = recorded(IMAGES, tmp_path / "out", IMAGES=str(folder), **more)
    for command in commands:
        assert_parses(command)
        if program(command) == "nar benchmark":
            assert_systems_parse(command)
    cut, benchmark = commands[0], next(command for command in commands if program(command) == "nar benchmark")
    assert option(cut, "--restore") == restored and option(cut, "--images") == str(folder)
    assert option(benchmark, "--forced-length") == "1024"
    systems = {benchmark[i + 1]: benchmark[i + 2] for i, word in enumerate(benchmark) if word == "--system"}
    wanted = ["ar-greedy", *(row for name in RESTORED[restored] for row in (name, f"{name}-exact"))]
    assert list(systems) == wanted
    for name, flags in systems.items():
        assert ("--accept distance --accept-distance 2" in flags) == (name in RESTORED[restored])
        assert "--baseline greedy" in flags and "--min-len 1024 --max-len-a 0 --max-len-b 1024 --unkpen" in flags
    trained = {Path(option(each, "--save-dir")).name: each for each in commands if each[0] == "fairseq-train"}
    heads = {int(option(each, "--block-heads")) for name, each in trained.items() if name != "teacher"}
    assert heads == {int(name.rpartition("k")[2]) for name in RESTORED[restored]}
    pictures = [command[-1] for command in commands if command[:3] == ["nar", "images", "picture"]]
    assert [Path(picture).stem for picture in pictures] == wanted
    again = recorded(IMAGES, tmp_path / "out", IMAGES=str(folder), **more)
    assert [command[:3] for command in again] == [["nar", "images", "score"], ["nar", "report", again[-1][2]]]


def test_a_dry_run_of_images_prints_the_commands_and_does_nothing(tmp_path: Path) -> None:
    """BPD-36: colours, and whole images of one's own, by variables."""
    faces = {"IMAGES": str(tmp_path), "CHANNELS": "3", "WHOLE": "1", "TEST_IMAGES": "100"}
    commands = printed(IMAGES, tmp_path / "out", **faces)
    for command in commands:
        assert_parses(command)
    cut = next(command for command in commands if command[:3] == ["nar", "images", "cut"])
    assert "--whole" in cut and option(cut, "--test-images") == "100" and option(cut, "--channels") == "3"
    teacher = next(command for command in commands if command[0] == "fairseq-train")
    assert option(teacher, "--max-target-positions") == "3073"
    updates = [int(option(teacher, flag)) for flag in ("--max-tokens", "--update-freq")]
    assert updates[0] >= 3073 and updates[0] * updates[1] == 2 * 3073


@pytest.mark.parametrize(
    ("step", "variables", "line"),
    [
        ("download", {"RESTORE": "colouring"}, "not colouring"),
        ("mask_predict", {}, "no step or method mask_predict"),
        ("distil", {}, "images are not distilled"),
    ],
)
def test_what_is_not_done_with_images_is_one_line(
    step: str, variables: Dict[str, str], line: str, tmp_path: Path
) -> None:
    done = called(IMAGES, step, OUT=str(tmp_path / "out"), DRY_RUN="1", **variables)
    assert done.returncode == 2 and line in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_recipes_are_few_files() -> None:
    assert len(list(EXAMPLES.rglob("*.sh"))) <= 26
