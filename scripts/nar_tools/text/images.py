"""Images as lines of tokens: an 8-bit intensity is a word, a patch a sentence, in raster order.

The second task of blockwise parallel decoding (Stern, Shazeer & Uszkoreit 2018): from what is left of a patch, side
``low``, to the patch itself, side ``high``. In ``super_resolution`` means of 4 by 4 pixels are left, in ``denoising``
Gaussian noise is added, in ``inpainting`` the middle is missing. The dictionary of a side has its intensities in their
order, so that ids are as far apart as intensities are.

Patches are arrays (N, S, S, C) of ``uint8``, photographs (H, W, C); C is 1 or 3, and the colours of a pixel follow each
other.
"""

from dataclasses import asdict, dataclass
from json import dumps, loads
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from ..errors import ToolError
from ..files import read, read_lines, whole, write_lines

RESTORED = ("super_resolution", "denoising", "inpainting")
SPLITS = ("train", "valid", "test")
FACTOR = 4
"""By which super-resolution enlarges a side."""
NOISE = 25.0
"""Standard deviation of the noise, in intensities."""
HOLE = "hole"
"""The word of a pixel that is missing."""
GREY = 128
"""What is shown of it."""
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FACTS = "images.json"
LACKING = "images need Pillow and, where no --images are given, scikit-learn: pip install"

Patches = np.ndarray


@dataclass(frozen=True)
class Facts:
    """What a folder of lines holds. ``side``: of a patch, in pixels; ``columns``: patches beside each other in the
    picture that those of the test split make."""

    restored: str
    side: int
    channels: int
    columns: int
    seed: int

    @property
    def pixels(self) -> int:
        """Tokens of a patch."""
        return self.side * self.side * self.channels

    @property
    def low_side(self) -> int:
        return self.side // FACTOR if self.restored == "super_resolution" else self.side


def pillow() -> Any:
    """What reads and writes images. Raises ToolError where it is missing."""
    try:
        from PIL import Image
    except ImportError:
        raise ToolError(f"{LACKING} pillow") from None
    return Image


def as_array(image: Any, channels: int) -> Patches:
    """(H, W, C) of an image of Pillow's."""
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def image_of(picture: Patches) -> Any:
    """The inverse."""
    return pillow().fromarray(picture if picture.shape[2] == 3 else picture[..., 0])


def shipped(channels: int) -> List[Tuple[str, Patches]]:
    """The photographs that come with scikit-learn, by their names."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        raise ToolError(f"{LACKING} scikit-learn") from None
    image, found = pillow(), load_sample_images()
    names = [Path(name).name for name in found.filenames]
    arrays = [as_array(image.fromarray(x), channels) for x in found.images]
    return sorted(zip(names, arrays), key=lambda named: named[0])


def in_folder(folder: Path, channels: int) -> List[Tuple[str, Patches]]:
    """The images of a folder, by their names."""
    reader, found = pillow(), []
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    except OSError as error:
        raise ToolError(f"cannot read {folder}: {error.strerror}") from None
    for path in paths:
        try:
            with reader.open(path) as image:
                found.append((path.name, as_array(image, channels)))
        except (OSError, ValueError) as error:
            raise ToolError(f"cannot read {path} as an image: {error}") from None
    if not found:
        raise ToolError(f"{folder} holds no image ({', '.join(ENDINGS)})")
    return found


def shrunk(photograph: Patches, side: int) -> Patches:
    """The middle square of a photograph as one patch, (1, S, S, C)."""
    height, width, channels = photograph.shape
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    square = image_of(photograph[top : top + size, left : left + size])
    return as_array(square.resize((side, side), pillow().Resampling.BOX), channels)[None]


def tiles(photograph: Patches, side: int) -> Patches:
    """All patches side by side, row by row; what is left over on the right and below is not used."""
    height, width, channels = photograph.shape
    rows, columns = height // side, width // side
    grid = photograph[: rows * side, : columns * side].reshape(rows, side, columns, side, channels)
    return grid.swapaxes(1, 2).reshape(-1, side, side, channels)


def drawn(photographs: Sequence[Patches], side: int, count: int, rng: np.random.Generator) -> Patches:
    """So many patches from anywhere: every place of every photograph is as probable."""
    places = np.array([(len(x) - side + 1) * (x.shape[1] - side + 1) for x in photographs])
    found = []
    for i in rng.choice(len(photographs), size=count, p=places / places.sum()):
        top, left = (int(rng.integers(size - side + 1)) for size in photographs[i].shape[:2])
        found.append(photographs[i][top : top + side, left : left + side])
    return np.stack(found)


def parted(photograph: Patches, side: int) -> Tuple[Patches, Patches, Patches]:
    """The left part of a photograph, which trains, a strip that validates, and the right half, which tests.

    Raises ToolError where it is too narrow.
    """
    columns = photograph.shape[1] // side
    if columns < 3:
        raise ToolError(f"the last image is to be parted, for which it must be {3 * side} pixels wide at least")
    right, middle = columns // 2 * side, max(1, columns // 10) * side
    left = photograph.shape[1] - right - middle
    return photograph[:, :left], photograph[:, left : left + middle], photograph[:, left + middle :]


def split(
    images: Sequence[Tuple[str, Patches]], side: int, count: int, tested: int, is_whole: bool, seed: int
) -> Tuple[Dict[str, Patches], int]:
    """The patches of every split, and how many of the test split stand beside each other.

    ``tested``: so many images test, the last by name, and as many before them validate; 0: the last one is parted, and
    all others train. ``count``: patches that train, unless each image is one (``is_whole``). Raises ToolError for
    images that are too few or too small.
    """
    for name, x in images:
        if min(x.shape[:2]) < side:
            raise ToolError(f"{name} is smaller than a patch of {side} by {side} pixels")
    photographs = [x for _, x in images]
    if is_whole and not tested:
        raise ToolError("where an image is a patch, --test-images says how many of them test")
    if tested and len(images) <= 2 * tested:
        raise ToolError(f"--test-images {tested}: of {len(images)} images none is left that trains")
    if tested:
        groups = [photographs[: -2 * tested], photographs[-2 * tested : -tested], photographs[-tested:]]
    else:
        groups = [[x] for x in parted(photographs[-1], side)]
        groups[0] += photographs[:-1]
    if is_whole:
        return {name: np.concatenate([shrunk(x, side) for x in xs]) for name, xs in zip(SPLITS, groups)}, 10
    held = {name: np.concatenate([tiles(x, side) for x in xs]) for name, xs in zip(SPLITS[1:], groups[1:])}
    patches = drawn(groups[0], side, count, np.random.default_rng(seed))
    return {"train": patches, **held}, groups[2][0].shape[1] // side


def hole_of(side: int) -> Tuple[slice, slice]:
    """The rows and columns of the middle, half a side wide."""
    middle = slice(side // 4, side // 4 + side // 2)
    return middle, middle


def lost(patches: Patches, restored: str, rng: np.random.Generator) -> Patches:
    """What is left of patches, (N, S', S', C) of ``int16``; −1 where nothing is."""
    count, side, _, channels = patches.shape
    if restored == "super_resolution":
        small = side // FACTOR
        means = patches.reshape(count, small, FACTOR, small, FACTOR, channels).mean((2, 4))
        return np.rint(means).astype(np.int16)
    if restored == "denoising":
        noisy = patches + rng.normal(0.0, NOISE, patches.shape)
        return np.rint(noisy).clip(0, 255).astype(np.int16)
    left = patches.astype(np.int16)
    left[(slice(None), *hole_of(side))] = -1
    return left


def line_of(patch: Patches) -> str:
    return " ".join(HOLE if x < 0 else str(x) for x in patch.reshape(-1).tolist())


def patches_of(path: Path, side: int, channels: int) -> Patches:
    """The (N, S, S, C) patches of a file of lines, of ``int16``; −1 where a pixel is missing.

    Raises ToolError for a line that is no patch.
    """
    found, known = [], {**{str(x): x for x in range(256)}, HOLE: -1}
    for number, line in enumerate(read_lines(path), 1):
        words = line.split()
        if len(words) != side * side * channels:
            raise ToolError(f"{path}, line {number}: {len(words)} tokens, where a patch has {side * side * channels}")
        strange = [word for word in words if word not in known]
        if strange:
            raise ToolError(f"{path}, line {number}: {strange[0]!r} is no intensity from 0 to 255")
        found.append([known[word] for word in words])
    return np.array(found, dtype=np.int16).reshape(-1, side, side, channels)


def write(folder: Path, patches: Dict[str, Patches], facts: Facts) -> None:
    """The lines of both sides of every split, their dictionaries, and the facts."""
    for number, name in enumerate(SPLITS):
        rng = np.random.default_rng([facts.seed, number])
        write_lines(folder / f"{name}.low", map(line_of, lost(patches[name], facts.restored, rng)))
        write_lines(folder / f"{name}.high", map(line_of, patches[name]))
    words = [f"{x} 1" for x in range(256)]
    write_lines(folder / "dict.high.txt", words)
    write_lines(folder / "dict.low.txt", words + [f"{HOLE} 1"] * (facts.restored == "inpainting"))
    write_lines(folder / FACTS, [dumps(asdict(facts))])


def facts_of(folder: Path) -> Facts:
    """Of a folder that ``write`` wrote. Raises ToolError for another one."""
    try:
        return Facts(**loads(read(folder / FACTS)))
    except (ValueError, TypeError):
        raise ToolError(f"{folder / FACTS} is not what nar images cut writes") from None


def enlarged(patches: Patches, side: int) -> Patches:
    """Patches as they are shown: of the full side, each pixel repeated, and grey where nothing is known."""
    factor = side // patches.shape[1]
    return np.where(patches < 0, GREY, patches).repeat(factor, 1).repeat(factor, 2).astype(np.uint8)


def mosaic(patches: Patches, columns: int) -> Patches:
    """(N, S, S, C) patches side by side, row by row, (H, W, C); the last row is filled up with white."""
    count, side, _, channels = patches.shape
    rows = -(-count // columns)
    white = np.full((rows * columns - count, side, side, channels), 255, dtype=np.uint8)
    grid = np.concatenate([patches, white]).reshape(rows, columns, side, side, channels)
    return grid.swapaxes(1, 2).reshape(rows * side, columns * side, channels)


def beside(pictures: Sequence[Patches], gap: int) -> Patches:
    """Pictures of one height beside each other, with white between them."""
    white = np.full((len(pictures[0]), gap, pictures[0].shape[2]), 255, dtype=np.uint8)

    def parts() -> Iterator[Patches]:
        for picture in pictures:
            yield from (white, picture)

    return np.concatenate(list(parts())[1:], 1)


def save(picture: Patches, path: Path, zoom: int) -> None:
    """An (H, W, C) picture as PNG, each pixel ``zoom`` times as wide and as high."""
    image = image_of(picture.repeat(zoom, 0).repeat(zoom, 1))
    try:
        with whole(path) as unfinished:
            image.save(unfinished, format="PNG")
    except OSError as error:
        raise ToolError(f"cannot write {path}: {error.strerror or error}") from None
