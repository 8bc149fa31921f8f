"""The recipes for WMT and IWSLT, from archives as they are served to a scored table: real programs, tiny models."""

import io
import json
import os
import shlex
import shutil
import subprocess
import tarfile
import threading
import zipfile
from functools import partial
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import toy_pairs
from tests.end_to_end.programs import PLUGIN, ROOT, Outcome, script
from tests.end_to_end.programs import succeed as run_program
from tests.end_to_end.warm import warm_programs

Pairs = List[Tuple[str, str]]
Members = Dict[str, bytes]
RECIPES = ("iwslt16_de_en", "iwslt14_de_en", "wmt14_en_de", "wmt16_ro_en")
LIKE_OTHERS = ("iwslt16_de_en", "wmt16_ro_en")
"""Whose steps are those of the other of the two conferences."""
METHODS = sorted({path.stem for path in (ROOT / "examples" / "methods").glob("*.sh")} - {"teacher"})
SMALL = {
    **{"SIZE": "tiny", "UPDATES": "30", "TOKENS": "1000", "MAX_TOKENS": "500", "BEST": "1", "MERGES": "60"},
    "FINETUNE_UPDATES": "5",
    **{"GPUS": "0", "JOBS": "1", "CHECKSUMS": os.devnull, "OMP_NUM_THREADS": "1"},
}
"""A recipe in seconds: variables that its users have too."""


def lines(texts: List[str]) -> bytes:
    return "".join(text + "\n" for text in texts).encode()


def sides(pairs: Pairs) -> Tuple[List[str], List[str]]:
    return [source for source, _ in pairs], [target for _, target in pairs]


def sgm(texts: List[str]) -> bytes:
    """A test set of WMT."""
    segments = "".join(f'<seg id="{i}">{escape(text)}</seg>\n' for i, text in enumerate(texts, 1))
    return (
        f'<srcset setid="newstest" srclang="any">\n<doc docid="a">\n<p>\n{segments}</p>\n</doc>\n</srcset>\n'.encode()
    )


def xml(texts: List[str]) -> bytes:
    """A test set of IWSLT."""
    segments = "".join(f'<seg id="{i}"> {escape(text)} </seg>\n' for i, text in enumerate(texts, 1))
    talk = f"<url>http://www.ted.com/talks/x</url>\n<title>A talk</title>\n{segments}"
    return f'<?xml version="1.0"?>\n<mteval>\n<srcset>\n<doc>\n{talk}</doc>\n</srcset>\n</mteval>'.encode()


def tagged(texts: List[str]) -> bytes:
    """A training text of IWSLT: talks, each with its tags."""
    tags = ["<url>http://www.ted.com/talks/x</url>", "<keywords>talks, house</keywords>", "<speaker>A. B.</speaker>"]
    titles = ["<title>bana deret</title>", "<description>TED Talk: bana deret</description>"]
    return lines(
        [*tags, "<talkid>1</talkid>", *titles, *texts[: len(texts) // 2], *tags, *titles, *texts[len(texts) // 2 :]]
    )


def tgz(members: Members) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return content.getvalue()


def zipped(members: Members) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


def plain_pairs(count: int, seed: int) -> Pairs:
    """Toy pairs without hyphens, at which Moses parts words."""
    return [(source, target.replace("-", "")) for source, target in toy_pairs(count, seed)]


def iwslt(year: str, sets: List[str], train: Pairs, test: Pairs) -> Members:
    members: Members = {}
    for lang, text, tested in zip(("de", "en"), sides(train), sides(test)):
        members[f"de-en/train.tags.de-en.{lang}"] = tagged(text)
        members |= {f"de-en/IWSLT{year}.{name}.de-en.{lang}.xml": xml(tested) for name in sets}
    return members


def archives(recipe: str) -> Members:
    """The files that a recipe downloads, as their publishers pack them: 230 toy pairs, 20 of each test set."""
    train, test = plain_pairs(230, 1), plain_pairs(20, 2)
    if recipe == "iwslt16_de_en":
        inner = tgz(iwslt("16", ["TED.tst2013", "TED.tst2014"], train, test))
        return {"2016-01.tgz": tgz({"2016-01/texts/de/en/de-en.tgz": inner, "2016-01/README": b"of the campaign\n"})}
    if recipe == "iwslt14_de_en":
        sets = ["TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012"]
        return {"de-en.tgz": tgz(iwslt("14", sets, train, test))}
    (source, target), (tested, answers) = sides(train), sides(test)
    if recipe == "wmt16_ro_en":
        europarl = {
            f"training-parallel-ep-v8/europarl-v8.ro-en.{lang}": text
            for lang, text in (("ro", lines(source[:150])), ("en", lines(target[:150])))
        }
        setimes = {
            "SETIMES.en-ro.ro": lines(source[150:]),
            "SETIMES.en-ro.en": lines(target[150:]),
            "README": b"of it\n",
        }
        sets = {
            f"{folder}/{name}-roen-{side}.sgm": sgm(text)
            for folder, name in (("dev", "newsdev2016"), ("test", "newstest2016"))
            for side, text in (("src.ro", tested), ("ref.en", answers))
        }
        return {
            "training-parallel-ep-v8.tgz": tgz(europarl),
            "setimes.zip": zipped(setimes),
            "wmt16-dev.tgz": tgz(sets),
            "wmt16-test.tgz": tgz(sets),
        }

    def both(stem: str, first: int, last: int) -> Members:
        return {f"{stem}.de-en.en": lines(source[first:last]), f"{stem}.de-en.de": lines(target[first:last])}

    return {
        "training-parallel-europarl-v7.tgz": tgz(
            {**both("training/europarl-v7", 0, 100), "training/europarl-v7.fr-en.fr": b"x\n"}
        ),
        "training-parallel-commoncrawl.tgz": tgz(both("commoncrawl", 100, 150)),
        "training-parallel-nc-v9.tgz": tgz(both("training/news-commentary-v9", 150, 230)),
        "wmt13-test.tgz": tgz(
            {"test/newstest2013-src.en.sgm": sgm(tested), "test/newstest2013-src.de.sgm": sgm(answers)}
        ),
        "test-full.tgz": tgz(
            {
                "test-full/newstest2014-deen-src.en.sgm": sgm(tested),
                "test-full/newstest2014-deen-ref.de.sgm": sgm(answers),
            }
        ),
    }


Run = Callable[..., Outcome]


@pytest.fixture
def shelf(tmp_path: Path) -> Callable[[str], Path]:
    """The folder of a recipe's archives."""

    def make(recipe: str) -> Path:
        folder = tmp_path / "archives"
        folder.mkdir()
        for name, content in archives(recipe).items():
            (folder / name).write_bytes(content)
        return folder

    return make


PROGRAMS = """
nar() { PATH="{folder}:$PATH" python "{nar}" "$@"; }
bash() { [[ $1 == */install.sh ]] || command bash "$@"; }
"""
"""More that bash has warm: `nar`, which finds fairseq's programs in a folder; the installation is not looked at."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs steps of a recipe in small, its outputs in the test's folder."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("fairseq-train", "fairseq-generate"):
        (programs / name).write_text(f'#!/bin/bash\n{name} "$@"\n')
        (programs / name).chmod(0o755)
    with warm_programs(tmp_path) as warm:
        with open(warm["BASH_ENV"], "a") as stubs:
            stubs.write(PROGRAMS.replace("{folder}", str(programs)).replace("{nar}", script("nar")))

        def steps(recipe: str, *names: str, **variables: Any) -> Outcome:
            environment = {**os.environ, **SMALL, **warm, "OUT": str(tmp_path / "out")}
            done = subprocess.run(
                ["bash", f"examples/{recipe}/run.sh", *names],
                capture_output=True,
                text=True,
                timeout=300,
                cwd=ROOT,
                env={**environment, **{name: str(value) for name, value in variables.items()}},
            )
            return Outcome(done.returncode, done.stdout, done.stderr)

        yield steps


def succeed(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.stdout[-2000:] + outcome.stderr[-2000:]
    return outcome


def are_done_before(outcome: Outcome) -> bool:
    return {line.split(": ")[1] for line in succeed(outcome).stdout.splitlines() if line} == {"done before"}


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(name, marks=pytest.mark.slow if name in LIKE_OTHERS else ()) for name in RECIPES],
)
def test_a_recipe_goes_from_archives_to_a_score(recipe: str, run: Run, shelf: Any, tmp_path: Path) -> None:
    methods = METHODS if recipe == "wmt14_en_de" else ["iterative_refinement", "mask_predict"]
    prepared = succeed(run(recipe, "download", "prepare", OFFLINE=shelf(recipe)))
    train = 234 if recipe == "iwslt14_de_en" else 230  # with the titles and descriptions of two talks
    assert f"{train} lines" in prepared.stderr and "of 23" in prepared.stderr and "Dictionary:" in prepared.stdout
    succeed(run(recipe, "teacher", "distil"))
    succeed(run(recipe, *methods, UPDATES="8"))
    ids = ["ar-greedy", "cmlm-t1", "lee-adaptive"]
    if methods == METHODS:
        ids += ["ar-deep-shallow", "lanmt-search", "cont-delta", "cont-energy", "cont-score"]
    scored = succeed(run(recipe, "decode", "score", IDS=" ".join(ids)))
    assert "left out" not in scored.stdout, "of those that are asked for all are there"
    rows = {row["id"]: row for row in json.loads((tmp_path / "out" / "scores.json").read_text())["rows"]}
    sentences = 100 if recipe == "iwslt14_de_en" else 20
    for name in ids:
        assert rows[name]["sentences"] == sentences and 0 <= rows[name]["bleu"] <= 100
    assert "lee-adaptive" in scored.stdout and "sacreBLEU: BLEU|" in scored.stdout
    if methods != METHODS:
        absent = run(recipe, "decode", IDS="lanmt-prior cont-energy ar-greedy")
        assert {line for line in succeed(absent).stdout.splitlines() if line} == {
            "== decode-ar-greedy: done before",
            "== decode-cont-energy: lanmt_refiner_energy-distilled is not trained, left out",
            "== decode-lanmt-prior: latent_transformer-distilled is not trained, left out",
        }
    assert are_done_before(run(recipe, "download", "prepare", OFFLINE=tmp_path / "archives"))


@pytest.mark.slow
def test_images_go_from_photographs_to_a_picture(run: Run, tmp_path: Path) -> None:
    """BPD-36: by a folder of one's own, with heads that accept what is near."""
    folder, rng = tmp_path / "images", np.random.default_rng(1)
    folder.mkdir()
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (16, 40), dtype=np.uint8)).save(folder / f"{name}.png")
    variables = {"IMAGES": folder, "SIDE": 8, "PATCHES": 40, "UPDATES": 8}
    succeed(run("super_resolution", "download", "prepare", "teacher", "students", "decode", **variables))
    shown = succeed(run("super_resolution", "score", "picture", **variables))
    rows = ["ar-greedy", "sr-k6", "sr-k6-exact", "sr-k10", "sr-k10-exact"]
    scores = [line.split() for line in shown.stdout.splitlines() if len(line.split()) == 4 and "==" not in line]
    assert [row[0] for row in scores] == ["input", *rows]
    for row in rows:
        patches = (tmp_path / "out" / "hypotheses" / f"{row}.txt").read_text().splitlines()
        assert len(patches) == 4 and all(len(patch.split()) == 64 for patch in patches)
        assert {int(word) for patch in patches for word in patch.split()} <= set(range(256))
        assert Image.open(tmp_path / "out" / "figures" / f"{row}.png").size == (2 * (3 * 16 + 2 * 8), 32)


@pytest.fixture
def mirror(shelf: Any) -> Iterator[Callable[[str], str]]:
    """The address of a server of a recipe's archives on this machine."""
    servers: List[ThreadingHTTPServer] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    def serve(recipe: str) -> str:
        handler = partial(Handler, directory=str(shelf(recipe)))
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_download_takes_the_first_mirror_that_lives(recipe: str, run: Run, mirror: Any, tmp_path: Path) -> None:
    address = mirror(recipe)
    succeed(run(recipe, "download", MIRRORS=f"http://127.0.0.1:9 {address}"))
    got = {path.name: path.read_bytes() for path in (tmp_path / "out" / "download").iterdir()}
    assert len(got.pop("sha256sums").splitlines()) == len(got)
    assert got.keys() == archives(recipe).keys()
    assert all(got[name] == (tmp_path / "archives" / name).read_bytes() for name in got)


BROKEN = {
    "a page": (lambda content: b"<!DOCTYPE html>Quota exceeded", "is an HTML page"),
    "cut short": (lambda content: content[:-50], "cut short"),
    "another file": (lambda content: content, "has another checksum than the one recorded"),
}


@pytest.mark.parametrize("road", ["offline", "http"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_archive_is_refused_and_the_next_mirror_asked(
    kind: str, road: str, run: Run, shelf: Any, mirror: Any, tmp_path: Path
) -> None:
    harm, complaint = BROKEN[kind]
    checksums = tmp_path / "checksums"
    checksums.write_text(f"{'0' * 32}  2016-01.tgz\n" if kind == "another file" else "")
    address = mirror("iwslt16_de_en")
    archive = tmp_path / "archives" / "2016-01.tgz"
    whole = archive.read_bytes()
    archive.write_bytes(harm(whole))
    variables = {"CHECKSUMS": str(checksums), "PATH": without_network(tmp_path)}
    if road == "offline":
        outcome = run("iwslt16_de_en", "download", OFFLINE=tmp_path / "archives", **variables)
    else:
        outcome = run("iwslt16_de_en", "download", MIRRORS=address, **variables)
    assert outcome.code == 2 and complaint in outcome.stderr and not (tmp_path / "out/download/2016-01.tgz").exists()
    assert run("iwslt16_de_en", "prepare").stderr.endswith("2016-01.tgz: run the steps before it\n")
    archive.write_bytes(whole)
    succeed(run("iwslt16_de_en", "download", MIRRORS=address))


def without_network(folder: Path) -> str:
    """A PATH on which curl reaches this machine alone: a test must not wait for the world."""
    curl = folder / "bin" / "curl"
    curl.parent.mkdir()
    real = shutil.which("curl")
    curl.write_text(f'#!/bin/bash\n[[ "$*" == *127.0.0.1* || "$*" == *file://* ]] && exec {real} "$@"\nexit 6\n')
    curl.chmod(0o755)
    return f"{curl.parent}:{os.environ['PATH']}"


CONFIGS = sorted((ROOT / "examples" / "wmt14_en_de" / "config").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_hydra_config_trains_the_model_of_its_recipe(
    config: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weight for weight, after three updates; all that the two are told apart is what they must be."""
    monkeypatch.setenv("DRY_RUN", "1")
    for name, value in {**SMALL, "OUT": str(tmp_path), "UPDATES": "3", "TOKENS": "500"}.items():
        monkeypatch.setenv(name, value)
    recipe = ["bash", "examples/wmt14_en_de/run.sh", config.stem]
    printed = subprocess.run(recipe, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    line = next(line for line in printed.splitlines() if line.startswith("fairseq-train "))
    words = shlex.split(line.partition(" 2>&1 ")[0])[2:]
    for unlike in ("--user-dir", "--save-dir", "--source-lang", "--target-lang"):
        del words[words.index(unlike) : words.index(unlike) + 2]
    words = [word for word in words if word not in ("--share-all-embeddings", "--eval-bleu")]
    short = ("--save-dir", tmp_path / "script", "--disable-validation")
    run_program("fairseq-train", data, "--user-dir", PLUGIN, *words, *short)
    told = {
        **{
            "common.user_dir": PLUGIN,
            "common.cpu": True,
            "common.fp16": False,
            "task.data": data,
            "task.source_lang": "src",
        },
        **{
            "task.target_lang": "tgt",
            "task.eval_bleu": False,
            "model._name": f"{config.stem}_tiny",
            "dataset.max_tokens": 500,
        },
        **{"model.share_all_embeddings": False, "optimization.update_freq": "[1]", "optimization.max_update": 3},
        **{
            "dataset.disable_validation": True,
            "checkpoint.save_dir": tmp_path / "hydra",
            "hydra.run.dir": tmp_path / "run",
        },
    }
    given = [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in told.items()]
    run_program("fairseq-hydra-train", "--config-dir", config.parent, "--config-name", config.stem, *given)
    ours, theirs = (
        torch.load(tmp_path / side / "checkpoint_last.pt", weights_only=False) for side in ("script", "hydra")
    )
    assert ours["model"].keys() == theirs["model"].keys()
    for name, weight in ours["model"].items():
        torch.testing.assert_close(theirs["model"][name], weight, rtol=0, atol=0, msg=name)


def preview(recipe: str, name: str, folder: Path = ROOT, **variables: str) -> Outcome:
    """What a step would do."""
    path = os.path.relpath(ROOT / "examples" / recipe / "run.sh", folder)
    environment = {**os.environ, "DRY_RUN": "1", "OUT": "/nonexistent/out", **variables}
    done = subprocess.run(["bash", path, name], capture_output=True, text=True, cwd=folder, env=environment, timeout=60)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("recipe", "step", "variables", "word"),
    [
        ("wmt14_en_de", "teacher", {"TEACHER": "big"}, "transformer_vaswani_wmt_en_de_big"),
        ("wmt14_en_de", "mask_predict", {"DATA": "raw"}, "/nonexistent/out/bin "),
        ("wmt14_en_de", "mask_predict", {"SEED": "7"}, "--seed 7"),
        ("wmt14_en_de", "prepare", {"HOLD_OUT": "100"}, "--hold-out 100"),
        ("wmt14_en_de", "prepare", {"MERGES": "99"}, "--merges 99"),
        ("wmt14_en_de", "download", {"MIRRORS": "http://nearer.example/"}, "http://nearer.example/"),
        ("wmt16_ro_en", "prepare", {"ROMANIAN": "plain"}, "--romanian plain"),
        ("wmt16_ro_en", "prepare", {"SEPARATE": "1"}, "/nonexistent/out/kept/train.ro:ro --codes"),
        ("iwslt16_de_en", "download", {"YEAR": "2017"}, "2017-01-trnted/texts/en/de/en-de.tgz"),
    ],
)
def test_a_variable_changes_what_is_done(recipe: str, step: str, variables: Dict[str, str], word: str) -> None:
    """Without it the word is not there."""
    given = {"GPUS": "0", "PYTHONUNBUFFERED": "1"}
    plain, changed = (preview(recipe, step, **given, **more) for more in ({}, variables))
    assert plain.code == changed.code == 0, changed.stderr
    assert word not in plain.stdout and word in changed.stdout


def flag_of(outcome: Outcome, name: str) -> str:
    (line,) = [line for line in outcome.lines if "fairseq-train" in line]
    words = shlex.split(line)
    return words[words.index(name) + 1]


@pytest.mark.parametrize("step", ["download", "mask_predict"])
def test_a_recipe_may_be_called_from_its_own_folder(step: str) -> None:
    outcome = preview("wmt14_en_de", step, ROOT / "examples" / "wmt14_en_de")
    assert outcome.code == 0 and "\n# " in outcome.stdout, outcome.stderr
    assert not Path("/nonexistent").exists()


@pytest.mark.parametrize(
    ("gpus", "machines", "step", "expected"),
    [
        ("8", "1", "mask_predict", ("8", "8000", "2")),
        ("1", "2", "mask_predict", ("2", "8000", "8")),
        ("0", "1", "mask_predict", ("1", "8000", "16")),
        ("8", "1", "iterative_refinement", ("2", "1024", "1")),
    ],
)
def test_an_update_has_the_papers_tokens_on_any_number_of_gpus(
    gpus: str, machines: str, step: str, expected: Tuple[str, str, str]
) -> None:
    outcome = preview("wmt14_en_de", step, GPUS=gpus, MACHINES=machines, MASTER="host:1")
    assert outcome.code == 0, outcome.stderr
    found = tuple(flag_of(outcome, flag) for flag in ("--distributed-world-size", "--max-tokens", "--update-freq"))
    assert found == expected


def test_few_tokens_are_the_first_machines_alone() -> None:
    many = {"GPUS": "8", "MACHINES": "2", "MASTER": "host:1"}
    first = preview("wmt14_en_de", "iterative_refinement", **many)
    assert "\nfairseq-train " in first.stdout and flag_of(first, "--distributed-world-size") == "2"
    second = preview("wmt14_en_de", "iterative_refinement", MACHINE="1", **many)
    assert second.code == 0 and "fairseq-train" not in second.stdout


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"DATA": "Raw"}, "DATA is distilled or raw"),
        ({"PRECISION": "half"}, "PRECISION is fp16"),
        ({"MAX_TOKENS": "many"}, "whole numbers above 0"),
        ({"MACHINES": "2", "GPUS": "2"}, "wants MASTER=HOST:PORT"),
        ({"MACHINES": "2", "GPUS": "0"}, "wants GPUs"),
        ({"DRY_RUN": "", "GPUS": "64"}, "GPUS=64, but"),
    ],
)
def test_a_variable_that_cannot_be_is_one_line(variables: Dict[str, str], complaint: str, tmp_path: Path) -> None:
    outcome = preview("wmt14_en_de", "mask_predict", **{"OUT": str(tmp_path), **variables})
    assert outcome.code == 2 and complaint in outcome.stderr and outcome.stderr.count("\n") == 1


def test_the_gpus_of_the_user_are_those_that_are_used(tmp_path: Path) -> None:
    recipe = tmp_path / "run.sh"
    setting = "SOURCE=de TARGET=en SIZE=tiny ARCHIVES=() TEXTS=()"
    line = 'echo "$GPUS $CUDA_VISIBLE_DEVICES ${DEVICE[*]}"'
    recipe.write_text(f"{setting}\nsource {ROOT}/examples/recipe.sh\n{line}\n")
    for given, expected in (({}, "2 3,5 "), ({"GPUS": "1"}, "1 3 "), ({"GPUS": "0"}, "0  --cpu")):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "3,5", "OUT": str(tmp_path), **given}
        done = subprocess.run(["bash", recipe], capture_output=True, text=True, env=environment, timeout=60)
        assert done.stdout == expected + "\n", done.stderr


def test_an_archive_that_changed_since_it_was_first_fetched_is_refused(run: Run, mirror: Any, tmp_path: Path) -> None:
    address, archive = mirror("iwslt16_de_en"), tmp_path / "archives" / "2016-01.tgz"
    succeed(run("iwslt16_de_en", "download", MIRRORS=address))
    (tmp_path / "out" / "download" / "2016-01.tgz").unlink()
    archive.write_bytes(tgz({"another": b"text"}))
    outcome = run("iwslt16_de_en", "download", MIRRORS=address, PATH=without_network(tmp_path))
    assert outcome.code == 2 and "has another checksum than the one recorded" in outcome.stderr


def test_another_machine_goes_on_with_a_training(run: Run, shelf: Any, tmp_path: Path) -> None:
    """Other tokens at once, a later end: the same training; other tokens an update: another, the old one is kept."""
    recipe, models = "iwslt16_de_en", tmp_path / "out" / "models"
    succeed(run(recipe, "download", "prepare", "teacher", OFFLINE=shelf(recipe)))
    longer = succeed(run(recipe, "teacher", MAX_TOKENS="1000", UPDATES="40"))
    log = (tmp_path / "out" / "logs" / "teacher.log").read_text()
    assert "@ 30 updates" in log and "put aside" not in longer.stdout
    other = succeed(run(recipe, "teacher", TOKENS="900", UPDATES="3"))
    assert "put aside" in other.stdout and (models / "teacher.before" / "checkpoint_last.pt").exists()
    assert are_done_before(run(recipe, "teacher", TOKENS="900", UPDATES="3", MAX_TOKENS="300"))
    assert are_done_before(run(recipe, "download", "prepare", OFFLINE=tmp_path / "archives"))
    assert "nothing decodes as cmlm-t99" in run(recipe, "decode", IDS="cmlm-t99").stderr


def test_a_valid_set_may_be_held_out_of_any_corpus(run: Run, shelf: Any, tmp_path: Path) -> None:
    folder = shelf("wmt14_en_de")
    first = succeed(run("wmt14_en_de", "download", "prepare", OFFLINE=folder, HOLD_OUT="10"))
    assert "23 of them to" in first.stderr and "extract-valid" not in first.stdout
    assert (tmp_path / "out" / "bpe" / "valid.en").read_text().count("\n") == 23
    assert are_done_before(run("wmt14_en_de", "prepare", HOLD_OUT="10"))
