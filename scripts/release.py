"""Packs files that go out together, and says whether they came in whole: manifest.json with their hashes.

release.py pack FOLDER --made-from TEXT... [--command LINE...]     after the files have been put into FOLDER
release.py check FOLDER [--made-from TEXT...]                       ends with 2 and one line where something differs

--made-from: the files that those of the release belong to; kept as name and hash.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Dict, List

from files import fail, read, write_lines
from provenance import commit, now, sha256

MANIFEST = "manifest.json"


def hashes(paths: List[Path]) -> Dict[str, str]:
    """sha256 by file name. An unreadable file ends the program."""
    try:
        return {path.name: sha256(path) for path in paths}
    except OSError as error:
        fail(f"cannot read {error.filename}: {error.strerror}")


def pack(folder: Path, made_from: List[Path], commands: List[str]) -> Dict[str, Any]:
    """The manifest of all other files in the folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    if not files:
        fail(f"{folder} is empty")
    return {
        "files": hashes(files),
        "bytes": {path.name: path.stat().st_size for path in files},
        "made_from": hashes(made_from),
        "commands": commands,
        "commit": commit(),
        "date": now(),
    }


def check(folder: Path, made_from: List[Path]) -> None:
    """Ends the program at the first file that is not what the manifest says."""
    try:
        manifest = json.loads(read(folder / MANIFEST))
        files, origins = manifest["files"], manifest["made_from"]
    except (ValueError, KeyError, TypeError):
        fail(f"{folder / MANIFEST} is no manifest")
    for name, found in hashes([folder / name for name in files]).items():
        if files[name] != found:
            fail(f"{folder / name} is not the file that was released (cut, or changed)")
    for name, found in hashes(made_from).items():
        if origins.get(name) != found:
            fail(f"the release in {folder} was made from another {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("pack", "check"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--made-from", nargs="+", type=Path, default=[], metavar="TEXT")
    parser.add_argument("--command", action="append", default=[], metavar="LINE", help="how it was made; repeatable")
    args = parser.parse_args()
    if not args.folder.is_dir():
        fail(f"there is no folder {args.folder}")
    if args.action == "pack" and not args.made_from:
        parser.error("pack needs --made-from")
    if args.action == "check":
        check(args.folder, args.made_from)
        print(f"{args.folder}: whole{', and made from this text' if args.made_from else ''}")
    else:
        manifest = pack(args.folder, args.made_from, args.command)
        write_lines(args.folder / MANIFEST, json.dumps(manifest, indent=1).split("\n"))
        print(f"{args.folder}: {len(manifest['files'])} files, {sum(manifest['bytes'].values()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
