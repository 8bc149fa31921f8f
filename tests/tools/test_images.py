"""Images as lines of tokens: what is cut out of which image, what is left of it, how near hypotheses are, pictures."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nar_tools.errors import ToolError
from nar_tools.measure import pixels, results, tables
from nar_tools.text import images
from tests.tools.conftest import Nar
from tests.tools.rows import forced

SIDE = 8
SMALL = ("--side", SIDE, "--patches", 12)


def photograph(height: int, width: int, seed: int, channels: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two grey images, and a file that is none."""
    made = tmp_path / "images"
    made.mkdir()
    for name, seed in (("a.png", 1), ("b.PNG", 2)):
        Image.fromarray(photograph(20, 45, seed)[..., 0]).save(made / name, format="PNG")
    (made / "notes.txt").write_text("where they are from")
    return made


@pytest.fixture
def raw(folder: Path, tmp_path: Path, nar: Nar) -> Path:
    done = nar("images", "cut", "--output", tmp_path / "raw", "--images", folder, *SMALL)
    assert done.code == 0, done.stderr
    return tmp_path / "raw"


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_the_last_image_is_parted_and_nothing_is_in_two_splits(raw: Path, folder: Path) -> None:
    """BPD-34: its right half tests, a strip beside it validates; patches that train come from the rest of it, too."""
    b = np.asarray(Image.open(folder / "b.PNG"))
    expected = [b[y : y + SIDE, x : x + SIDE] for y in (0, 8) for x in (29, 37)]
    assert lines(raw / "test.high") == [" ".join(map(str, patch.reshape(-1))) for patch in expected]
    assert lines(raw / "valid.high") == [" ".join(map(str, b[y : y + SIDE, 21:29].reshape(-1))) for y in (0, 8)]
    sources = [np.asarray(Image.open(folder / "a.png")), b[:, :21]]
    trained = lines(raw / "train.high")
    assert len(trained) == 12 and len(set(trained)) > 8
    everywhere = {
        " ".join(map(str, x[top : top + SIDE, left : left + SIDE].reshape(-1)))
        for x in sources
        for top in range(len(x) - SIDE + 1)
        for left in range(x.shape[1] - SIDE + 1)
    }
    assert set(trained) <= everywhere


def test_places_are_drawn_from_every_image_alike() -> None:
    """BPD-34: each place of a patch with the same probability, by the seed alone."""
    photographs = [np.zeros((8, 8, 1), np.uint8), np.full((8, 10, 1), 9, np.uint8)]
    found = images.drawn(photographs, SIDE, 4000, np.random.default_rng(1))
    assert abs((found[:, 0, 0, 0] == 0).mean() - 1 / 4) < 0.03
    again = images.drawn([photograph(20, 30, 3)], SIDE, 5, np.random.default_rng(2))
    assert (again == images.drawn([photograph(20, 30, 3)], SIDE, 5, np.random.default_rng(2))).all()
    assert not (again == images.drawn([photograph(20, 30, 3)], SIDE, 5, np.random.default_rng(4))).all()


def test_means_of_sixteen_pixels_are_left_for_super_resolution() -> None:
    """BPD-34."""
    patches = photograph(8, 8, 1)[None]
    found = images.lost(patches, "super_resolution", np.random.default_rng(1))
    expected = [[round(patches[0, y : y + 4, x : x + 4].mean()) for x in (0, 4)] for y in (0, 4)]
    assert found[0, ..., 0].tolist() == expected


def test_noise_is_gaussian_within_the_intensities() -> None:
    """BPD-34: of a standard deviation of 25."""
    patches = np.full((40, 32, 32, 1), 128, np.uint8)
    found = images.lost(patches, "denoising", np.random.default_rng(1)) - 128.0
    assert abs(found.mean()) < 0.5 and abs(found.std() - images.NOISE) < 0.5
    dark = images.lost(np.zeros_like(patches), "denoising", np.random.default_rng(1))
    assert dark.min() == 0 and 0.45 < (dark == 0).mean() < 0.55


def test_the_middle_is_missing_for_inpainting(folder: Path, tmp_path: Path, nar: Nar) -> None:
    """BPD-34: a quarter of the pixels, which are a word of their own on the side that is given."""
    out = tmp_path / "raw"
    assert nar("images", "cut", "--output", out, "--images", folder, *SMALL, "--restore", "inpainting").code == 0
    given, wanted = (np.array([line.split() for line in lines(out / f"test.{side}")]) for side in ("low", "high"))
    is_hole = (given == images.HOLE).reshape(-1, SIDE, SIDE)
    assert is_hole[:, 2:6, 2:6].all() and is_hole.sum() == 16 * len(given)
    assert (given == wanted)[given != images.HOLE].all() and images.HOLE not in wanted
    assert lines(out / "dict.low.txt") == [*lines(out / "dict.high.txt"), "hole 1"]


def test_ids_are_as_far_apart_as_intensities(raw: Path) -> None:
    """BPD-34: the dictionaries have the intensities in their order."""
    for side in ("low", "high"):
        assert lines(raw / f"dict.{side}.txt") == [f"{x} 1" for x in range(256)]


@pytest.mark.parametrize("channels", [1, 3])
def test_lines_become_the_images_that_they_were(channels: int, tmp_path: Path) -> None:
    """BPD-34: in raster order, the colours of a pixel beside each other."""
    image = photograph(16, 24, 5, channels)
    (tmp_path / "lines").write_text("".join(images.line_of(patch) + "\n" for patch in images.tiles(image, SIDE)))
    found = images.patches_of(tmp_path / "lines", SIDE, channels)
    assert found.shape == (6, SIDE, SIDE, channels) and (images.mosaic(found, 3) == image).all()
    first = (tmp_path / "lines").read_text().split()[: 2 * channels]
    assert first == [str(x) for x in image[0, :2].reshape(-1)]


def test_whole_images_are_one_patch_each(tmp_path: Path, nar: Nar) -> None:
    """BPD-34: the middle square, made smaller; the last images test, those before them validate."""
    made = tmp_path / "faces"
    made.mkdir()
    for i in range(5):
        Image.fromarray(np.full((32, 40, 3), 10 * i, np.uint8)).save(made / f"{i}.png")
    flags = ("--whole", "--test-images", 2, "--channels", 3)
    done = nar("images", "cut", "--output", tmp_path / "raw", "--images", made, *SMALL, *flags)
    assert done.code == 0 and "192 tokens: 1 train, 2 valid, 2 test" in done.stdout
    for name, values in (("train", [0]), ("valid", [10, 20]), ("test", [30, 40])):
        assert lines(tmp_path / "raw" / f"{name}.high") == [" ".join([str(x)] * 192) for x in values]


def test_the_photographs_of_scikit_learn_are_taken_by_default(
    nar: Nar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BPD-34: through its own function, and nothing is downloaded."""
    found = SimpleNamespace(
        images=[photograph(20, 45, 2, 3), photograph(20, 45, 1, 3)], filenames=["/x/two.jpg", "/x/one.jpg"]
    )
    datasets = SimpleNamespace(load_sample_images=lambda: found)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", datasets)
    assert [name for name, _ in images.shipped(1)] == ["one.jpg", "two.jpg"]
    assert (images.shipped(3)[1][1] == found.images[0]).all()
    assert nar("images", "cut", "--output", tmp_path / "raw", *SMALL).stdout.startswith("2 images, patches of 64")


def test_the_photographs_are_there() -> None:
    """BPD-34: those of the installed scikit-learn, which fairseq brings."""
    pytest.importorskip("sklearn")
    assert [(name, x.shape) for name, x in images.shipped(1)] == [
        ("china.jpg", (427, 640, 1)),
        ("flower.jpg", (427, 640, 1)),
    ]


@pytest.mark.parametrize(("module", "name"), [("sklearn.datasets", "scikit-learn"), ("PIL", "pillow")])
def test_a_missing_library_is_one_line(
    module: str, name: str, nar: Nar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = nar("images", "cut", "--output", tmp_path / "raw")
    assert done.code == 2 and done.stderr.startswith("nar images: images need Pillow") and name in done.stderr


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--images", "nowhere"), "cannot read nowhere"),
        (("--side", 10), "--side wants a multiple of 4"),
        (("--patches", 0), "--patches 1 or more"),
        (("--side", 24), "a.png is smaller than a patch of 24 by 24 pixels"),
        (("--side", 16), "48 pixels wide at least"),
        (("--test-images", 1), "--test-images 1: of 2 images none is left that trains"),
        (("--whole",), "--test-images says how many"),
    ],
)
def test_what_cannot_be_cut_is_one_line(
    flags: tuple[Any, ...], complaint: str, folder: Path, tmp_path: Path, nar: Nar
) -> None:
    done = nar("images", "cut", "--output", tmp_path / "raw", "--images", folder, *SMALL, *flags)
    assert done.code == 2 and complaint in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "raw").exists()


def test_a_file_that_is_no_image_is_named(folder: Path, tmp_path: Path, nar: Nar) -> None:
    (folder / "c.png").write_text("no image")
    done = nar("images", "cut", "--output", tmp_path / "raw", "--images", folder, *SMALL)
    assert done.code == 2 and "c.png as an image" in done.stderr and done.stderr.count("\n") == 1
    for path in folder.iterdir():
        path.unlink()
    done = nar("images", "cut", "--output", tmp_path / "raw", "--images", folder, *SMALL)
    assert done.code == 2 and "holds no image" in done.stderr


def test_scores_are_of_all_pixels() -> None:
    """BPD-35."""
    reference = np.zeros((2, 2, 2, 1))
    found = reference.copy()
    found[0, 0, 0], found[1, 1, 1] = 3, 5
    scores = pixels.scores(found, reference)
    assert scores["psnr"] == round(10 * np.log10(255**2 / (34 / 8)), 3)
    assert scores["pixel_difference"] == 1 and scores["pixels_equal"] == 75
    assert pixels.scores(reference, reference)["psnr"] is None


def test_files_of_hypotheses_are_scored_beside_what_they_are_made_from(raw: Path, tmp_path: Path, nar: Nar) -> None:
    """BPD-35: and the scores are put into the rows of that name."""
    (tmp_path / "sr-k6.txt").write_text((raw / "test.high").read_text())
    shifted = [" ".join(str(max(int(word) - 2, 0)) for word in line.split()) for line in lines(raw / "test.high")]
    (tmp_path / "sr-k10.txt").write_text("\n".join(shifted) + "\n")
    table = tmp_path / "results.json"
    results.write(table, [forced(name, 64, passes=13.0) for name in ("ar-greedy", "sr-k6", "sr-k10")])
    files = [tmp_path / f"sr-k{k}.txt" for k in (6, 10)]
    done = nar("images", "score", raw, "--hypotheses", *files, "--results", table)
    assert done.code == 0, done.stderr
    told = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}
    assert list(told) == ["input", "sr-k6", "sr-k10"] and told["sr-k6"] == ["inf", "0.00", "100.00"]
    rows = {row["id"]: row for row in json.loads(table.read_text())}
    assert rows["ar-greedy"]["psnr"] is None and rows["sr-k6"]["pixels_equal"] == 100
    assert 42 < rows["sr-k10"]["psnr"] < 43 and rows["sr-k10"]["pixels_equal"] < 5
    shown = tables.table(list(rows.values()))
    assert "PSNR" in shown and "tokens a call" in shown and " 5.00" in shown
    assert "PSNR" not in tables.table([forced("a", 64)]) and "tokens a call" not in tables.table([forced("a", 64)])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 2 3\n", "line 1: 3 tokens, where a patch has 64"),
        (" ".join(["256"] * 64) + "\n", "line 1: '256' is no intensity from 0 to 255"),
        (" ".join(["1"] * 64) + "\n", "1 images, where the test split has 4"),
        ((" ".join(["hole"] * 64) + "\n") * 4, "'hole' is no intensity"),
    ],
)
def test_lines_that_are_no_images_of_the_test_split_are_refused(
    text: str, complaint: str, raw: Path, tmp_path: Path, nar: Nar
) -> None:
    (tmp_path / "a.txt").write_text(text)
    done = nar("images", "score", raw, "--hypotheses", tmp_path / "a.txt")
    assert done.code == 2 and complaint in done.stderr and done.stderr.count("\n") == 1


def test_a_folder_that_was_not_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot read"):
        images.facts_of(tmp_path)
    (tmp_path / images.FACTS).write_text("{}")
    with pytest.raises(ToolError, match="not what nar images cut writes"):
        images.facts_of(tmp_path)


def test_a_picture_has_what_is_given_the_output_and_the_reference(raw: Path, tmp_path: Path, nar: Nar) -> None:
    """BPD-35: side by side, each pixel of a low resolution as large as those that it is the mean of; the same bytes."""
    hypotheses = tmp_path / "a.txt"
    hypotheses.write_text((" ".join(["7"] * 64) + "\n") * 4)
    for name in ("one.png", "two.png"):
        done = nar("images", "picture", raw, "--hypotheses", hypotheses, "--output", tmp_path / name)
        assert done.code == 0, done.stderr
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    picture = np.asarray(Image.open(tmp_path / "one.png"))
    assert picture.shape == (32, 2 * (3 * 16 + 2 * 8))
    small = picture[::2, ::2]
    given, output, reference = small[:, :16], small[:, 24:40], small[:, 48:]
    assert (small[:, 16:24] == 255).all() and (output == 7).all()
    wanted = images.mosaic(images.patches_of(raw / "test.high", SIDE, 1), 2)[..., 0]
    assert (reference == wanted).all() and given[0, 0] == int(lines(raw / "test.low")[0].split()[0])
    assert (given[:4, :4] == given[0, 0]).all() and given[0, 4] == int(lines(raw / "test.low")[0].split()[1])
