"""What the recipes are made of: steps that are skipped or done again, some at once; what a training is to bash."""

import os
import subprocess
from pathlib import Path
from typing import Any, Callable, List, Set

import pytest

from tests.end_to_end.programs import ROOT, Outcome

LIBRARY = ROOT / "examples" / "lib.sh"
Bash = Callable[..., Outcome]


@pytest.fixture
def bash(tmp_path: Path) -> Bash:
    """Runs lines of bash as a recipe's: after the library, in the folder of its outputs."""

    def run(body: str, setting: str = "") -> Outcome:
        script = tmp_path / "recipe.sh"
        beginning = f'HERE={tmp_path} OUT={tmp_path}\nsource "{LIBRARY}"\ncd "$OUT"\n'
        script.write_text(f"{beginning}{setting}\n{body}\n", encoding="utf-8")
        done = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=60, env={**os.environ})
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def calls(folder: Path) -> List[str]:
    path = folder / "calls"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def stamped(folder: Path) -> Set[str]:
    """The steps that were done to their end; the stamps of others say that they were begun."""
    stamps = (folder / ".stamps").iterdir()
    return {stamp.name for stamp in stamps if not stamp.read_text().endswith(" begun\n")}


@pytest.mark.parametrize(
    ("begun_in", "out", "expected"),
    [
        (ROOT, "examples/quickstart", "examples/quickstart"),
        (ROOT / "examples", "quickstart", "examples/quickstart"),
        ("/", f"{ROOT}/examples/quickstart", "examples/quickstart"),
        (None, "new/out", "{folder}/new/out"),
    ],
)
def test_folders_of_the_project_are_named_from_its_root_wherever_a_recipe_is_begun(
    begun_in: Any, out: str, expected: str, tmp_path: Path
) -> None:
    line = f'HERE="{ROOT}/examples/quickstart" OUT={out}; source "{LIBRARY}"; echo "$HERE $OUT $PLUGIN"; pwd'
    done = subprocess.run(["bash", "-c", line], cwd=begun_in or tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"examples/quickstart {expected.format(folder=tmp_path)} nar_plugin\n{ROOT}\n", done.stderr
    assert Path(ROOT, expected.format(folder=tmp_path)).is_dir()


MAKE = "make() { echo made >>calls; cat input >output; }\n"
STEP = MAKE + "step copy from input to output -- run make"


@pytest.fixture
def made(bash: Bash, tmp_path: Path) -> Path:
    """A folder in which the step `copy` was done, an hour ago."""
    (tmp_path / "input").write_text("text\n")
    os.utime(tmp_path / "input", (1_000_000, 1_000_000))
    assert bash(STEP).code == 0
    assert calls(tmp_path) == ["made"]
    return tmp_path


def test_a_step_that_was_done_is_skipped(bash: Bash, made: Path) -> None:
    outcome = bash(STEP)
    assert outcome.code == 0 and calls(made) == ["made"]
    assert outcome.stdout == "== copy: done before\n"


CHANGES = {
    "its input was made anew": lambda folder: os.utime(folder / "input", (1_000_001, 1_000_001)),
    "its input has another size": lambda folder: append_at_the_same_time(folder / "input"),
    "its output was cut": lambda folder: (folder / "output").write_text("te"),
    "its output is gone": lambda folder: (folder / "output").unlink(),
    "its stamp is gone": lambda folder: (folder / ".stamps" / "copy").unlink(),
}


def append_at_the_same_time(path: Path) -> None:
    with open(path, "a") as file:
        file.write("more\n")
    os.utime(path, (1_000_000, 1_000_000))


@pytest.mark.parametrize("change", CHANGES)
def test_a_step_is_done_again_where(change: str, bash: Bash, made: Path) -> None:
    CHANGES[change](made)
    assert bash(STEP).code == 0 and calls(made) == ["made", "made"]
    assert (made / "output").read_text() == (made / "input").read_text()
    assert bash(STEP).code == 0 and calls(made) == ["made", "made"], "and then it is done"


def test_a_step_is_skipped_where_its_output_was_only_touched(bash: Bash, made: Path) -> None:
    os.utime(made / "output", (2_000_000, 2_000_000))
    assert bash(STEP).code == 0 and calls(made) == ["made"]


@pytest.mark.parametrize(
    "line",
    [
        "step copy from input to output -- run make more",  # another command
        "both() { run make && run true; }; step copy from input to output -- both",  # one more
        "step copy from input other to output -- run make",  # another input
        "step copy from input to output other -- run make",  # another output
        "step twin from input to output -- run make",  # another name
    ],
)
def test_another_line_is_another_step(line: str, bash: Bash, made: Path) -> None:
    (made / "other").write_text("")
    assert bash(MAKE + line).code == 0 and calls(made) == ["made", "made"]


def test_another_function_with_the_same_commands_is_the_same_step(bash: Bash, made: Path) -> None:
    other = "other() { say 'as before' >&2; for i in 1; do run make; done; }\nstep copy from input to output -- other"
    assert bash(MAKE + other).code == 0 and calls(made) == ["made"]


def test_a_command_whose_words_are_parted_otherwise_is_another_command(bash: Bash, tmp_path: Path) -> None:
    say = "tell() { echo $# >>calls; touch output; }\nstep tell to output -- run tell "
    assert bash(say + "'a b' c").code == 0 and bash(say + "a 'b c' d").code == 0 and bash(say + "a 'b c d'").code == 0
    assert calls(tmp_path) == ["2", "3", "2"]


@pytest.mark.parametrize("setting", ["JOBS=8", "GPUS=4", "MAX_TOKENS=100", "MACHINES=2"])
def test_a_step_is_skipped_where_only_devices_differ(setting: str, bash: Bash, made: Path) -> None:
    step = 'make() { echo "made" >>calls; cp input output; }\nall() { run make "$JOBS $GPUS $MAX_TOKENS $MACHINES"; }\n'
    step += "step copy from input to output -- all"
    plain = "JOBS=1 GPUS=0 MAX_TOKENS=8192"
    assert bash(step, plain).code == 0 and len(calls(made)) == 2
    assert bash(step, f"{plain} {setting}").code == 0 and len(calls(made)) == 2


def test_only_the_first_machine_keeps_the_books(bash: Bash, made: Path) -> None:
    stamp = (made / ".stamps" / "copy").read_text()
    (made / "output").unlink()
    assert bash(STEP, "MACHINE=1").code == 0 and calls(made) == ["made", "made"]
    assert (made / ".stamps" / "copy").read_text() == stamp


def test_a_step_whose_input_is_missing_ends_the_recipe_in_one_line(bash: Bash, tmp_path: Path) -> None:
    outcome = bash("step a from absent to calls -- eval 'echo made >>calls'")
    assert (outcome.code, calls(tmp_path)) == (2, [])
    assert outcome.stderr == "recipe.sh: step a needs absent: run the steps before it\n"


def test_a_step_whose_output_was_not_made_is_never_done(bash: Bash, tmp_path: Path) -> None:
    for _ in range(2):
        assert bash("step b to absent -- eval 'echo made >>calls'").code == 0
    assert calls(tmp_path) == ["made"] * 2


BROKEN = """
fill() { echo begun >>calls; echo half >output; false; echo 'went on' >>calls; }
broken() { run fill; run echo 'went on' >>calls; }
"""


@pytest.mark.parametrize(
    "failure", ["broken", "false", "no_such_command", "fail 'it cannot be'", "bash -c 'kill -9 $$'"]
)
def test_a_step_that_fails_ends_the_recipe_and_is_not_stamped(failure: str, bash: Bash, tmp_path: Path) -> None:
    (tmp_path / "output").write_text("half\n")  # as large as it would be
    outcome = bash(BROKEN + f"step copy to output -- {failure}\necho 'the next step' >>calls")
    assert outcome.code != 0
    assert calls(tmp_path) == (["begun"] if failure == "broken" else [])
    assert not stamped(tmp_path)


def test_a_step_that_fails_the_second_time_loses_its_stamp(bash: Bash, made: Path) -> None:
    (made / "output").unlink()
    assert bash("make() { cat input >output; false; }\nstep copy from input to output -- run make").code != 0
    assert (made / "output").read_text() == "text\n" and not stamped(made)
    assert bash(STEP).code == 0 and calls(made) == ["made", "made"]


BOTH = """
good() { sleep 0.3; echo good >>calls; echo x >good; }
broken() { false; echo 'went on' >>calls; echo x >bad; }
"""


@pytest.mark.parametrize("good_first", [True, False])
def test_of_two_steps_at_once_one_fails_and_the_other_is_stamped(good_first: bool, bash: Bash, tmp_path: Path) -> None:
    steps = ["step good to good -- run good", "step bad to bad -- run broken"]
    first, second = steps if good_first else steps[::-1]
    outcome = bash(f"{BOTH}\ntogether '{first}' '{second}'\necho 'the next step' >>calls")
    assert outcome.code != 0
    assert calls(tmp_path) == ["good"], "the other is finished, nothing after the failure is done"
    assert stamped(tmp_path) == {"good"}


def test_two_steps_at_once_that_both_fail_end_the_recipe(bash: Bash, tmp_path: Path) -> None:
    steps = "'step a to bad -- run broken' 'step b to bad -- run broken'"
    outcome = bash(f"{BOTH}\ntogether {steps}\necho 'the next step' >>calls")
    assert outcome.code != 0 and calls(tmp_path) == [] and not stamped(tmp_path)


def test_a_single_step_that_fails_ends_the_recipe(bash: Bash, tmp_path: Path) -> None:
    outcome = bash(f"{BOTH}\ntogether 'step a to bad -- run broken'\necho 'the next step' >>calls")
    assert outcome.code != 0 and calls(tmp_path) == []


def test_two_steps_at_once_run_at_once_and_both_are_stamped(bash: Bash, tmp_path: Path) -> None:
    wait = 'wait_for() { touch "$1"; for _ in {1..100}; do [[ ! -e $2 ]] || return 0; sleep 0.05; done; false; }'
    line = "together 'step a to a -- run wait_for a b' 'step b to b -- run wait_for b a'"
    assert bash(f"{wait}\n{line}\necho 'the next step' >>calls").code == 0
    assert stamped(tmp_path) == {"a", "b"}
    assert calls(tmp_path) == ["the next step"]
    assert bash(f"{wait}\n{line}").stdout.count("done before") == 2


def test_no_more_than_so_many_steps_run_at_once(bash: Bash, tmp_path: Path) -> None:
    """Each counts those that run while it does."""
    work = 'work() { touch "run-$1"; sleep 0.3; find . -name "run-*" | wc -l >>calls; rm "run-$1"; touch "$1"; }'
    line = "together " + " ".join(f"'step {name} to {name} -- run work {name}'" for name in "abcde")
    assert bash(f"{work}\n{line}", "AT_ONCE=3").code == 0
    counts = list(map(int, calls(tmp_path)))
    assert len(counts) == 5 and max(counts) == 3
    outcome = bash(line, "AT_ONCE=0")
    assert outcome.code == 2 and outcome.stderr == "recipe.sh: AT_ONCE wants a whole number above 0, not 0\n"


def test_of_many_steps_one_that_fails_lets_the_others_end(bash: Bash, tmp_path: Path) -> None:
    steps = [f"'step {name} to {name} -- {'false' if name == 'b' else f'touch {name}'}'" for name in "abcd"]
    assert bash(f"together {' '.join(steps)}\necho 'the next step' >>calls").code != 0
    assert stamped(tmp_path) == {"a", "c", "d"}
    assert calls(tmp_path) == []


def test_an_input_that_its_step_did_not_end_is_refused(bash: Bash, tmp_path: Path) -> None:
    broken = "make() { echo half >made; false; }\nstep make to made -- run make"
    use = "step use from made to used -- eval 'cat made >used'"
    assert bash(broken).code != 0 and (tmp_path / "made").exists()
    outcome = bash(use)
    assert outcome.code == 2 and not (tmp_path / "used").exists()
    assert outcome.stderr == "recipe.sh: step use needs made, which is not whole: run the step before it again\n"
    whole = "make() { echo whole >made; }\nstep make to made -- run make"
    assert bash(whole).code == 0 and bash(use).code == 0 and (tmp_path / "used").read_text() == "whole\n"
    (tmp_path / "made").write_text("who")
    assert bash(use).code == 2, "it was cut after its step had ended"
    (tmp_path / "made").write_text("a file that nobody's step made")
    (tmp_path / ".stamps" / "make").unlink()
    assert bash(use).code == 0


def test_a_file_that_another_step_made_whole_is_whole(bash: Bash, tmp_path: Path) -> None:
    """Two ways to one file: the first was killed, the second ended."""
    assert bash("make() { echo half >made; false; }\nstep long-way to made -- run make").code != 0
    assert bash("make() { echo whole >made; }\nstep short-way to made -- run make").code == 0
    assert bash("step use from made to used -- eval 'cat made >used'").code == 0
    assert stamped(tmp_path) == {"short-way", "use"}


def test_a_dry_run_prints_the_commands_and_does_nothing(bash: Bash, tmp_path: Path) -> None:
    make = "make() { run echo 'two words' x; run_to 'a file' echo \"it's\" '$HOME'; }\n"
    outcome = bash(make + "step make from absent to made -- make", "DRY_RUN=1")
    lines = ["# make", "echo 'two words' x", "echo 'it'\\''s' '$HOME' > 'a file'"]
    assert outcome.code == 0 and outcome.stdout.splitlines()[1:] == lines
    assert not (tmp_path / ".stamps").exists() and not (tmp_path / "a file").exists()
    done = bash(make + "make")
    assert done.stdout == "two words x\n" and (tmp_path / "a file").read_text() == "it's $HOME\n"
    pasted = bash("\n".join(lines))
    assert pasted.stdout == done.stdout and (tmp_path / "a file").read_text() == "it's $HOME\n"


NAR = 'nar() { echo "nar $*" >>calls; [[ $1 != "${FAILS:-}" ]]; }'
TRAIN = "train tiny bin --lr 1"


def test_a_training_has_the_flags_that_are_asked_for_and_leaves_its_weights(bash: Bash, tmp_path: Path) -> None:
    assert bash(TRAIN, f"{NAR}; TOKENS=900").code == 0
    folder, log = tmp_path / "models" / "tiny", tmp_path / "logs" / "tiny.log"
    flags = f"--user-dir nar_plugin --save-dir {folder} --no-progress-bar --log-format simple --lr 1"
    assert calls(tmp_path) == [
        f"nar train tiny --log {log} --tokens 900 --machine 0 -- fairseq-train bin {flags}",
        f"nar average --inputs {folder}/checkpoint_last.pt --output {folder}.pt",
        f"nar curve {log} --output {folder}.curve.json",
    ]


def test_the_weights_may_be_an_average_and_made_for_others(bash: Bash, tmp_path: Path) -> None:
    assert bash(TRAIN, f"{NAR}; WEIGHTS=(--last 5) RELEASED=(--half --forget-paths)").code == 0
    folder = tmp_path / "models" / "tiny"
    assert calls(tmp_path)[1] == f"nar average --dir {folder} --last 5 --half --forget-paths --output {folder}.pt"


@pytest.mark.parametrize(("verb", "count"), [("train", 1), ("average", 2), ("curve", 3)])
def test_a_training_that_fails_ends_the_recipe(verb: str, count: int, bash: Bash, tmp_path: Path) -> None:
    outcome = bash(f"{TRAIN}\necho 'the next step' >>calls", f"{NAR}; FAILS={verb}")
    assert outcome.code != 0 and len(calls(tmp_path)) == count


def test_another_machine_trains_and_leaves_the_weights_to_the_first(bash: Bash, tmp_path: Path) -> None:
    assert bash(TRAIN, f"{NAR}; MACHINE=1; TRAINER=(torchrun --node-rank 1 fairseq-train)").code == 0
    (only,) = calls(tmp_path)
    assert only.startswith("nar train ") and " --machine 1 -- torchrun --node-rank 1 fairseq-train bin " in only


def test_a_training_is_printed_as_one_may_type_it(bash: Bash, tmp_path: Path) -> None:
    outcome = bash("train tiny bin --adam-betas '(0.9, 0.98)'", f"{NAR}; DRY_RUN=1")
    folder, first, *more = outcome.stdout.splitlines()
    assert folder == f"mkdir -p {tmp_path}/logs"
    assert first.startswith("fairseq-train bin --user-dir nar_plugin --save-dir ")
    assert first.endswith(f" --adam-betas '(0.9, 0.98)' 2>&1 | tee -a {tmp_path}/logs/tiny.log")
    assert [line.split()[:2] for line in more] == [["nar", "average"], ["nar", "curve"]] and not calls(tmp_path)
