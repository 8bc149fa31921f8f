"""What the recipes share: steps that are skipped or done again, some at once; downloads; trainings that go on."""

import gzip
import hashlib
import os
import re
import subprocess
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest
import torch

from tests.end_to_end.programs import Outcome

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "examples" / "lib.sh"
STUBS = """
python() { echo "python $*" >>"$OUT/calls"; }
fairseq-train() {
  local folder update=0 more=$MORE line
  echo "train $*" >>"$OUT/calls"
  [[ $* =~ --save-dir\\ ([^ ]+) ]] && folder=${BASH_REMATCH[1]}
  if [[ -e $folder/checkpoint_last.pt ]]; then update=$(<"$folder/checkpoint_last.pt"); fi
  echo "begins at $update" >>"$OUT/calls"
  echo $((update + more)) >"$folder/checkpoint_last.pt"
  return "$STATUS"
}
MORE=10 STATUS=0
"""
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
STEP = MAKE + "step copy from input to output -- make"


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
        "step copy from input to output -- make more",  # another command
        "step copy from input other to output -- make",  # another input
        "step copy from input to output other -- make",  # another output
        "step twin from input to output -- make",  # another name
    ],
)
def test_another_line_is_another_step(line: str, bash: Bash, made: Path) -> None:
    (made / "other").write_text("")
    assert bash(MAKE + line).code == 0 and calls(made) == ["made", "made"]


def test_a_command_whose_words_are_parted_otherwise_is_another_command(bash: Bash, tmp_path: Path) -> None:
    say = "tell() { echo $# >>calls; touch output; }\nstep tell to output -- tell "
    assert bash(say + "'a b' c").code == 0 and bash(say + "a 'b c' d").code == 0 and bash(say + "a 'b c d'").code == 0
    assert calls(tmp_path) == ["2", "3", "2"]


def test_a_step_whose_input_is_missing_ends_the_recipe_in_one_line(bash: Bash, tmp_path: Path) -> None:
    outcome = bash("step a from absent to calls -- eval 'echo made >>calls'")
    assert (outcome.code, calls(tmp_path)) == (2, [])
    assert outcome.stderr == "recipe.sh: step a needs absent: run the steps before it\n"


def test_a_step_whose_output_was_not_made_is_never_done(bash: Bash, tmp_path: Path) -> None:
    for _ in range(2):
        assert bash("step b to absent -- eval 'echo made >>calls'").code == 0
    assert calls(tmp_path) == ["made"] * 2


STEPS = """
note() { echo "$1" >>calls; touch "$1"; }
step a to a -- note a
together step b to b -- note b : step c to c -- note c
step d to d -- note d
check_only
"""


@pytest.mark.parametrize("only", ["a", "b", "c", "d"])
def test_one_step_alone(only: str, bash: Bash, tmp_path: Path) -> None:
    assert bash(STEPS, f"ONLY={only}").code == 0
    assert calls(tmp_path) == [only]


def test_a_step_that_does_not_exist_is_named_with_those_that_do(bash: Bash, tmp_path: Path) -> None:
    outcome = bash(STEPS, "ONLY=e")
    assert (outcome.code, calls(tmp_path)) == (2, [])
    assert outcome.stderr == "recipe.sh: no step is called e; there are: a b c d\n"


FAILING = """
broken() { echo begun >>calls; echo half >output; false; echo 'went on' >>calls; }
"""


@pytest.mark.parametrize(
    "failure", ["broken", "false", "no_such_command", "fail 'it cannot be'", "bash -c 'kill -9 $$'"]
)
def test_a_step_that_fails_ends_the_recipe_and_is_not_stamped(failure: str, bash: Bash, tmp_path: Path) -> None:
    (tmp_path / "output").write_text("half\n")  # as large as it would be
    outcome = bash(FAILING + f"step copy to output -- {failure}\necho 'the next step' >>calls")
    assert outcome.code != 0
    assert calls(tmp_path) == (["begun"] if failure == "broken" else [])
    assert not (tmp_path / ".stamps" / "copy").exists()


def test_a_step_that_fails_the_second_time_loses_its_stamp(bash: Bash, made: Path) -> None:
    (made / "output").unlink()
    assert bash("make() { cat input >output; false; }\nstep copy from input to output -- make").code != 0
    assert (made / "output").read_text() == "text\n" and not (made / ".stamps" / "copy").exists()
    assert bash(STEP).code == 0 and calls(made) == ["made", "made"]


BOTH = """
good() { sleep 0.3; echo good >>calls; echo x >good; }
broken() { false; echo 'went on' >>calls; echo x >bad; }
"""


@pytest.mark.parametrize("good_first", [True, False])
def test_of_two_steps_at_once_one_fails_and_the_other_is_stamped(good_first: bool, bash: Bash, tmp_path: Path) -> None:
    steps = ["step good to good -- good", "step bad to bad -- broken"]
    first, second = steps if good_first else steps[::-1]
    outcome = bash(f"{BOTH}\ntogether {first} : {second}\necho 'the next step' >>calls")
    assert outcome.code != 0
    assert calls(tmp_path) == ["good"], "the other is finished, nothing after the failure is done"
    assert [path.name for path in (tmp_path / ".stamps").iterdir()] == ["good"]


def test_two_steps_at_once_that_both_fail_end_the_recipe(bash: Bash, tmp_path: Path) -> None:
    outcome = bash(f"{BOTH}\ntogether step a to bad -- broken : step b to bad -- broken\necho 'the next step' >>calls")
    assert outcome.code != 0 and calls(tmp_path) == [] and not list((tmp_path / ".stamps").iterdir())


def test_two_steps_at_once_run_at_once_and_both_are_stamped(bash: Bash, tmp_path: Path) -> None:
    wait = 'wait_for() { touch "$1"; for _ in {1..100}; do [[ ! -e $2 ]] || return 0; sleep 0.05; done; false; }'
    line = "together step a to a -- wait_for a b : step b to b -- wait_for b a"
    assert bash(f"{wait}\n{line}\necho 'the next step' >>calls").code == 0
    assert sorted(path.name for path in (tmp_path / ".stamps").iterdir()) == ["a", "b"]
    assert calls(tmp_path) == ["the next step"]
    assert bash(f"{wait}\n{line}").stdout.count("done before") == 2


def test_no_more_than_so_many_steps_run_at_once(bash: Bash, tmp_path: Path) -> None:
    """Each counts those that run while it does."""
    work = 'work() { touch "run-$1"; sleep 0.3; find . -name "run-*" | wc -l >>calls; rm "run-$1"; touch "$1"; }'
    line = "together " + " : ".join(f"step {name} to {name} -- work {name}" for name in "abcde")
    assert bash(f"{work}\n{line}", "JOBS=3").code == 0
    counts = list(map(int, calls(tmp_path)))
    assert len(counts) == 5 and max(counts) == 3


def test_of_many_steps_one_that_fails_lets_the_others_end(bash: Bash, tmp_path: Path) -> None:
    steps = [f"step {name} to {name} -- {'false' if name == 'b' else f'touch {name}'}" for name in "abcd"]
    assert bash(f"together {' : '.join(steps)}\necho 'the next step' >>calls").code != 0
    assert sorted(path.name for path in (tmp_path / ".stamps").iterdir()) == ["a", "c", "d"]
    assert calls(tmp_path) == []


TEXT = gzip.compress(b"ein Haus\n" * 5000 + bytes(range(256)), mtime=0)
SUM = hashlib.sha256(TEXT).hexdigest()
PAGE = b"<!DOCTYPE html><html><body>Quota exceeded</body></html>"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Tuple[str, Path, List[str]]]:
    """A folder served over loopback HTTP: address, folder, paths asked for. Parts only of what is called parts-..."""
    folder, asked = tmp_path / "served", []  # type: Path, List[str]
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def do_GET(self) -> None:
            first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if not first or not self.path.startswith("/parts-"):
                return super().do_GET()
            content = (folder / self.path[1:]).read_bytes()
            begin = int(first[1])
            asked.append(f"{self.path} from {begin}")
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            self.wfile.write(content[begin:])

        def log_message(self, *args: Any) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}", folder, asked
        httpd.shutdown()


def fetch(bash: Bash, *words: str, setting: str = "") -> Outcome:
    return bash(f"fetch got/text.gz {' '.join(words)}", setting)


@pytest.mark.parametrize("known", [SUM, "-"])
def test_a_file_is_fetched_whole(known: str, bash: Bash, server: Any, tmp_path: Path) -> None:
    url, folder, _ = server
    (folder / "text.gz").write_bytes(TEXT)
    outcome = fetch(bash, known, f"{url}/text.gz")
    assert outcome.code == 0, outcome.stderr
    assert {path.name for path in (tmp_path / "got").iterdir()} == {"text.gz", "sha256sums"}
    assert (tmp_path / "got" / "text.gz").read_bytes() == TEXT
    assert (tmp_path / "got" / "sha256sums").read_text() == f"{SUM}  text.gz\n"


def test_an_md5_serves_as_well(bash: Bash, server: Any, tmp_path: Path) -> None:
    url, folder, _ = server
    (folder / "text.gz").write_bytes(TEXT)
    assert fetch(bash, "0" * 32, f"{url}/text.gz").code == 2
    assert fetch(bash, hashlib.md5(TEXT).hexdigest(), f"{url}/text.gz").code == 0


@pytest.mark.parametrize("bytes_lost", [0, 10])
def test_a_zip_file_is_an_archive_to_its_end(bytes_lost: int, bash: Bash, server: Any, tmp_path: Path) -> None:
    url, folder, _ = server
    with zipfile.ZipFile(folder / "text.gz", "w") as archive:
        archive.writestr("text", "a house\n" * 100)
    content = (folder / "text.gz").read_bytes()
    (folder / "text.gz").write_bytes(content[: len(content) - bytes_lost])
    assert fetch(bash, "-", f"{url}/text.gz").code == (2 if bytes_lost else 0)


@pytest.mark.parametrize("begun", [TEXT[:100], TEXT, PAGE])
def test_what_an_interrupted_download_left_does_no_harm(begun: bytes, bash: Bash, server: Any, tmp_path: Path) -> None:
    url, folder, _ = server
    (folder / "text.gz").write_bytes(TEXT)
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "text.gz.part").write_bytes(begun)
    assert fetch(bash, SUM, f"{url}/text.gz").code == 0
    assert (tmp_path / "got" / "text.gz").read_bytes() == TEXT


def test_an_interrupted_download_goes_on_where_it_was(bash: Bash, server: Any, tmp_path: Path) -> None:
    url, folder, asked = server
    (folder / "parts-text.gz").write_bytes(TEXT)
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "text.gz.part").write_bytes(TEXT[:100])
    assert fetch(bash, SUM, f"{url}/parts-text.gz").code == 0
    assert (tmp_path / "got" / "text.gz").read_bytes() == TEXT
    assert asked[0] == "/parts-text.gz from 100" and not any(
        "text.gz" in path and "from" not in path for path in asked[2:]
    )


def test_what_came_before_the_network_failed_is_kept(bash: Bash, tmp_path: Path) -> None:
    part = tmp_path / "got" / "text.gz.part"
    part.parent.mkdir()
    part.write_bytes(TEXT[:100])
    assert fetch(bash, SUM, "http://127.0.0.1:9/text.gz").code == 2
    assert part.read_bytes() == TEXT[:100]


@pytest.mark.parametrize(
    ("served", "known", "complaint"),
    [
        (PAGE, "-", "is an HTML page, not an archive"),
        (TEXT[:-20], "-", "is no gzip or zip file, or cut short"),
        (b"", "-", "is no gzip or zip file, or cut short"),
        (TEXT, "0" * 64, "has another checksum than the one recorded"),
    ],
)
@pytest.mark.parametrize("road", ["http", "offline"])
def test_a_wrong_file_is_refused_in_one_line(
    served: bytes, known: str, complaint: str, road: str, bash: Bash, server: Any, tmp_path: Path
) -> None:
    url, folder, _ = server
    (folder / "text.gz").write_bytes(served)
    outcome = fetch(bash, known, f"{url}/text.gz", setting=f"OFFLINE={folder if road == 'offline' else ''}")
    assert outcome.code == 2 and not (tmp_path / "got" / "text.gz").exists()
    first, *more = outcome.stderr.splitlines()
    assert first.startswith("recipe.sh: ") and first.endswith(complaint)
    assert len(more) == (1 if road == "http" else 0), "over HTTP: that no address is left"


def test_the_next_address_serves_where_the_first_does_not(bash: Bash, server: Any, tmp_path: Path) -> None:
    url, folder, asked = server
    (folder / "page.gz").write_bytes(PAGE)
    (folder / "text.gz").write_bytes(TEXT)
    outcome = fetch(bash, SUM, f"{url}/absent.gz", f"{url}/page.gz", f"{url}/text.gz", f"{url}/never.gz")
    assert outcome.code == 0 and (tmp_path / "got" / "text.gz").read_bytes() == TEXT
    assert asked == ["/absent.gz"] * 2 + ["/page.gz", "/text.gz"]  # an error is logged twice by the server


def test_a_folder_serves_offline_and_says_what_it_lacks(bash: Bash, tmp_path: Path) -> None:
    (tmp_path / "text.gz").write_bytes(TEXT)
    assert fetch(bash, SUM, "http://127.0.0.1:9/none", setting=f"OFFLINE={tmp_path}").code == 0
    outcome = bash("fetch got/more.gz -", f"OFFLINE={tmp_path}")
    assert (outcome.code, outcome.stderr) == (2, f"recipe.sh: --offline: no more.gz in {tmp_path}\n")


def checkpoint(path: Path, updates: int, *, seconds: int, iterations: int = 70_000, note: str = "") -> None:
    """Writes what fairseq writes, in small: weights, and where in its data the training stands."""
    iterator = {"epoch": 2, "iterations_in_epoch": iterations, "shuffle": True}
    state = {"extra_state": {"note": note, "iterator": iterator}, "model": {"w": torch.full((100,), float(updates))}}
    with open(path, "wb") as file:  # as fairseq does it: else the file holds its own name and is as long as that
        torch.save(state, file)
    os.utime(path, (1_000_000 + seconds,) * 2)


def updates_in(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["model"]["w"][0])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the checkpoints of updates 800 and 1000, and the last, a copy of the latter."""
    folder = tmp_path / "models of mine"
    folder.mkdir()
    checkpoint(folder / "checkpoint_9_1000.pt", 1000, seconds=20)
    checkpoint(folder / "checkpoint_10_800.pt", 800, seconds=10)  # its name sorts behind the other's
    checkpoint(folder / "checkpoint_last.pt", 1000, seconds=20)
    return folder


@pytest.mark.parametrize("harm", [cut, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_last_checkpoint_that_was_cut_is_replaced_by_the_newest(
    harm: Callable[[Path], Any], bash: Bash, models: Path
) -> None:
    harm(models / "checkpoint_last.pt")
    newest = (models / "checkpoint_9_1000.pt").read_bytes()
    assert bash(f"_mend_last '{models}'").code == 0
    assert (models / "checkpoint_last.pt").read_bytes() == newest


def test_a_last_checkpoint_that_is_whole_is_left_alone(bash: Bash, models: Path) -> None:
    checkpoint(models / "checkpoint_last.pt", 1100, seconds=30)
    before = (models / "checkpoint_last.pt").read_bytes()
    assert bash(f"_mend_last '{models}'").code == 0
    assert (models / "checkpoint_last.pt").read_bytes() == before and updates_in(models / "checkpoint_last.pt") == 1100


def test_a_last_checkpoint_that_is_whole_and_smaller_is_left_alone(bash: Bash, models: Path) -> None:
    """At the end of an epoch the place in the data is zero, a byte and no more: some files are smaller for it."""
    last, newest = models / "checkpoint_last.pt", models / "checkpoint_9_1000.pt"
    for length in range(64):  # records begin at multiples of 64 bytes
        checkpoint(newest, 1000, seconds=20, note="x" * length)
        checkpoint(last, 1100, seconds=30, note="x" * length, iterations=0)
        if last.stat().st_size < newest.stat().st_size:
            break
    assert last.stat().st_size < newest.stat().st_size, "never smaller, so this tests nothing"
    assert bash(f"_mend_last '{models}'").code == 0
    assert updates_in(last) == 1100


def test_where_no_checkpoint_was_saved_there_is_nothing_to_mend(bash: Bash, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "checkpoint_best.pt").write_text("best")
    assert bash("_mend_last models").code == 0
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["checkpoint_best.pt"]


@pytest.fixture
def trained(bash: Bash, tmp_path: Path) -> Path:
    """A folder in which a model was trained for ten updates."""
    (tmp_path / "bin").mkdir()
    os.utime(tmp_path / "bin", (1_000_000, 1_000_000))
    assert bash("train tiny bin --lr 1", STUBS).code == 0
    assert calls(tmp_path)[1] == "begins at 0"
    return tmp_path


def begins(folder: Path) -> List[str]:
    return [call for call in calls(folder) if call.startswith("begins")]


def test_a_training_has_the_flags_that_are_asked_for_and_leaves_its_weights(trained: Path) -> None:
    train, _, weights, curve = calls(trained)
    folder = trained / "models" / "tiny"
    assert train == (
        f"train bin --user-dir nar_plugin --save-dir {folder} --no-progress-bar --log-format simple --lr 1"
    )
    script = "python scripts/average_checkpoints.py"
    assert weights == f"{script} --inputs {folder}/checkpoint_last.pt --output {trained}/models/tiny.pt"
    log, points = trained / "logs" / "tiny.log", trained / "models" / "tiny.curve.json"
    assert curve == f"python scripts/training_curve.py {log} --output {points}"


def test_the_weights_may_be_the_average_of_the_last_checkpoints(bash: Bash, trained: Path) -> None:
    assert bash("AVERAGE=5 TO_RELEASE=1 train tiny bin --lr 1", STUBS).code == 0
    assert (
        f" --dir {trained}/models/tiny --last 5 --half --forget-paths --output {trained}/models/tiny.pt"
        in calls(trained)[-2]
    )


def test_a_training_with_the_same_flags_goes_on(bash: Bash, trained: Path) -> None:
    assert bash("train tiny bin --lr 1", STUBS).code == 0
    assert begins(trained) == ["begins at 0", "begins at 10"]


@pytest.mark.parametrize(
    "line", ["train tiny bin --lr 2", "train tiny bin --lr 1 --clip-norm 1", "train tiny other --lr 1"]
)
def test_a_training_with_other_flags_or_data_starts_afresh(line: str, bash: Bash, trained: Path) -> None:
    (trained / "other").mkdir()
    (trained / "models" / "tiny" / "checkpoint_1_5.pt").write_text("of the training before")
    (trained / "logs" / "tiny.log").write_text("of the training before")
    assert bash(line, STUBS).code == 0
    assert "before" not in (trained / "logs" / "tiny.log").read_text()
    assert begins(trained) == ["begins at 0", "begins at 0"]
    assert not (trained / "models" / "tiny" / "checkpoint_1_5.pt").exists()


@pytest.mark.parametrize("flag", ["--latent-model", "--finetune-from-model"])
def test_a_training_on_a_model_trained_anew_starts_afresh(flag: str, bash: Bash, trained: Path) -> None:
    base, line = trained / "base.pt", f"train above bin {flag} base.pt"
    base.write_text("a")
    for _ in range(2):
        assert bash(line, STUBS).code == 0
    base.write_text("b")
    assert bash(line, STUBS).code == 0
    assert begins(trained)[1:] == ["begins at 0", "begins at 10", "begins at 0"]


def test_a_training_on_data_made_anew_starts_afresh(bash: Bash, trained: Path) -> None:
    os.utime(trained / "bin", (1_000_001, 1_000_001))
    assert bash("train tiny bin --lr 1", STUBS).code == 0
    assert begins(trained) == ["begins at 0", "begins at 0"]


def test_another_training_leaves_the_first_alone(bash: Bash, trained: Path) -> None:
    assert bash("train other bin --lr 1", STUBS).code == 0
    assert (trained / "models" / "tiny" / "checkpoint_last.pt").exists()


@pytest.mark.parametrize("newest", ["checkpoint_1_300.pt", "checkpoint12.pt"])
def test_a_training_that_was_killed_goes_on_from_the_newest_checkpoint(newest: str, bash: Bash, trained: Path) -> None:
    folder = trained / "models" / "tiny"
    (folder / newest).write_text("300\n")
    (folder / "checkpoint_last.pt").write_text("")
    assert bash("train tiny bin --lr 1", STUBS).code == 0
    assert begins(trained)[-1] == "begins at 300"


def test_a_training_that_fails_ends_the_recipe_and_writes_no_weights(bash: Bash, trained: Path) -> None:
    outcome = bash("train tiny bin --lr 1\necho 'the next step' >>calls", STUBS + "STATUS=1")
    assert outcome.code == 2
    assert outcome.stderr == f"recipe.sh: training tiny failed; see {trained}/logs/tiny.log\n"
    assert sum(call.startswith("python") for call in calls(trained)) == 2 and "the next step" not in calls(trained)
    assert bash("train tiny bin --lr 1", STUBS).code == 0 and begins(trained)[-1] == "begins at 20"


def test_weights_that_cannot_be_written_end_the_recipe(bash: Bash, trained: Path) -> None:
    outcome = bash("train tiny bin --lr 1\necho 'the next step' >>calls", STUBS + "python() { return 2; }")
    assert outcome.code == 2 and "the next step" not in calls(trained)
    assert outcome.stderr == f"recipe.sh: writing the weights of tiny failed; see {trained}/logs/tiny.log\n"


TIME = "2020-01-01 00:00:00 | INFO |"
REPORTS = f"""\
{TIME} fairseq_cli.train | training on 1 devices (GPUs/TPUs)
{TIME} train_inner | epoch 001:    100 / 250 loss=9.871, nll_loss=8.1, ppl=1.2, num_updates=100, lr=1e-05, wall=12
{TIME} valid | epoch 001 | loss 7.25 | nll_loss 6.5 | bleu 31.4 | num_updates 250 | best_bleu 33
{TIME} train | epoch 001 | loss 8.5 | nll_loss 8 | num_updates 250 | train_wall 20
{TIME} train_inner | epoch 002:     50 / 250 loss=-2e-05, num_updates=300, lr=1e-05, wall=3600
{TIME} valid | epoch 002 | loss 7 | num_updates 500
Traceback (most recent call last):
RuntimeError: out of memory
"""


def test_progress_is_a_short_line_for_each_report(bash: Bash, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(REPORTS)
    assert bash("_progress tiny <log").stdout.split("\n") == [
        "[tiny] update 100, loss 9.871, 12 s",
        "[tiny] validated at update 250, loss 7.25, BLEU 31.4",
        "[tiny] update 300, loss -2e-05, 3600 s",
        "[tiny] validated at update 500, loss 7, BLEU -",
        "[tiny] RuntimeError: out of memory",
        "",
    ]


def test_progress_does_not_wait_for_the_next_report(bash: Bash, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(REPORTS)
    talk = "head -n 2 log; for i in {1..100}; do [[ -s shown ]] && break; sleep 0.1; done; [[ -s shown ]] || touch late"
    assert bash(f"{{ {talk}; }} | _progress tiny >shown").code == 0
    assert (tmp_path / "shown").read_text() == "[tiny] update 100, loss 9.871, 12 s\n"
    assert not (tmp_path / "late").exists()


def test_all_that_a_training_says_is_in_its_log_and_its_reports_are_shown(bash: Bash, trained: Path) -> None:
    (trained / "reports").write_text(REPORTS)
    talking = "fairseq-train() { head -2 reports; sed -n 3p reports >&2; }"
    outcome = bash("train tiny bin --lr 1", STUBS + talking)
    assert (trained / "logs" / "tiny.log").read_text() == "\n".join(REPORTS.split("\n")[:3]) + "\n"
    assert re.findall(r"\[tiny\] (\w+)", outcome.stdout) == ["update", "validated"]


def test_an_input_that_its_step_did_not_end_is_refused(bash: Bash, tmp_path: Path) -> None:
    broken = "make() { echo half >made; false; }\nstep make to made -- make"
    use = "step use from made to used -- eval 'cat made >used'"
    assert bash(broken).code != 0 and (tmp_path / "made").exists()
    outcome = bash(use)
    assert outcome.code == 2 and not (tmp_path / "used").exists()
    assert outcome.stderr == "recipe.sh: step use needs made, which is not whole: run the step before it again\n"
    whole = "make() { echo whole >made; }\nstep make to made -- make"
    assert bash(whole).code == 0 and bash(use).code == 0 and (tmp_path / "used").read_text() == "whole\n"
    (tmp_path / "made").write_text("who")
    assert bash(use).code == 2, "it was cut after its step had ended"
    (tmp_path / "made").write_text("a file that nobody's step made")
    (tmp_path / ".stamps" / "make").unlink()
    assert bash(use).code == 0


def test_a_dry_run_prints_the_commands_and_does_nothing(bash: Bash, tmp_path: Path) -> None:
    step = "make() { run echo 'two words' x; }\nstep make from absent to made -- make"
    outcome = bash(step, "DRY_RUN=1")
    assert outcome.code == 0 and outcome.stdout == "\n== make\necho two\\ words x \n"
    assert not (tmp_path / ".stamps").exists()


def test_a_file_that_another_step_made_whole_is_whole(bash: Bash, tmp_path: Path) -> None:
    """Two ways to one file: the first was killed, the second ended."""
    assert bash("make() { echo half >made; false; }\nstep long-way to made -- make").code != 0
    assert bash("make() { echo whole >made; }\nstep short-way to made -- make").code == 0
    assert bash("step use from made to used -- eval 'cat made >used'").code == 0
    assert not list((tmp_path / ".begun").iterdir())


def test_a_damaged_zip_file_is_refused(bash: Bash, server: Any) -> None:
    url, folder, _ = server
    with zipfile.ZipFile(folder / "text.gz", "w") as archive:
        archive.writestr("text", "a house\n" * 100)
    content = (folder / "text.gz").read_bytes()
    (folder / "text.gz").write_bytes(content.replace(b"a house", b"a mouse", 1))
    assert fetch(bash, "-", f"{url}/text.gz").code == 2
