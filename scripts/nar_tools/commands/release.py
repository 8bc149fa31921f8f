"""Packs files that are released together, or checks that such a folder arrived whole (manifest.json has their hashes).

Example:

    nar release pack teacher --made-from train.de train.en --command "fairseq-train ..."
    nar release check teacher --made-from train.de train.en

`pack` writes manifest.json for the files that have been put into the folder. `check` ends with status 2 and one line
where something differs. --made-from names the files from which those of the release were made; the manifest keeps their
names and hashes.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Dict, List, Sequence

from ..cli import parser
from ..errors import ToolError
from ..files import read, write_lines
from ..provenance import commit, now, sha256

MANIFEST = "manifest.json"


def hashes(paths: Sequence[Path]) -> Dict[str, str]:
    """sha256 by file name."""
    try:
        return {path.name: sha256(path) for path in paths}
    except OSError as error:
        raise ToolError(f"cannot read {error.filename}: {error.strerror}") from None


def pack(folder: Path, made_from: List[Path], commands: List[str]) -> Dict[str, Any]:
    """The manifest of all other files in the folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    if not files:
        raise ToolError(f"{folder} is empty")
    return {
        "files": hashes(files),
        "bytes": {path.name: path.stat().st_size for path in files},
        "made_from": hashes(made_from),
        "commands": commands,
        "commit": commit(),
        "date": now(),
    }


def check(folder: Path, made_from: List[Path]) -> None:
    """A ToolError at the first file that is not what the manifest says."""
    try:
        manifest = json.loads(read(folder / MANIFEST))
        files, origins = manifest["files"], manifest["made_from"]
    except (ValueError, KeyError, TypeError):
        raise ToolError(f"{folder / MANIFEST} is no manifest") from None
    for name, found in hashes([folder / name for name in files]).items():
        if files[name] != found:
            raise ToolError(f"{folder / name} is not the file that was released (cut, or changed)")
    for name, found in hashes(made_from).items():
        if origins.get(name) != found:
            raise ToolError(f"the release in {folder} was made from another {name}")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options = parser("release", __doc__)
    options.add_argument("action", choices=("pack", "check"))
    options.add_argument("folder", type=Path)
    options.add_argument("--made-from", nargs="+", type=Path, default=[], metavar="TEXT")
    options.add_argument("--command", action="append", default=[], metavar="LINE", help="how it was made; repeatable")
    args = options.parse_args(argv)
    if not args.folder.is_dir():
        raise ToolError(f"there is no folder {args.folder}")
    if args.action == "pack" and not args.made_from:
        raise ToolError("pack needs --made-from")
    return args


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    if args.action == "check":
        check(args.folder, args.made_from)
        print(f"{args.folder}: whole{', and made from this text' if args.made_from else ''}")
    else:
        manifest = pack(args.folder, args.made_from, args.command)
        write_lines(args.folder / MANIFEST, json.dumps(manifest, indent=1).split("\n"))
        print(f"{args.folder}: {len(manifest['files'])} files, {sum(manifest['bytes'].values()) / 1e6:.1f} MB")
