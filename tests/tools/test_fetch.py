"""Downloads: whole or not at all, from the first address that serves, going on where they were."""

import gzip
import hashlib
import re
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from tests.end_to_end.programs import Outcome
from tests.tools.conftest import Nar

TEXT = gzip.compress(b"ein Haus\n" * 5000 + bytes(range(256)), mtime=0)
SUM = hashlib.sha256(TEXT).hexdigest()
PAGE = b"<!DOCTYPE html><html><body>Quota exceeded</body></html>"
NOWHERE = "http://127.0.0.1:9"
Fetch = Callable[..., Outcome]


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
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}", folder, asked
        httpd.shutdown()


@pytest.fixture
def fetch(nar: Nar, tmp_path: Path) -> Fetch:
    """``fetch(sum, URL, ...)``: got/text.gz, whose checksum is this one, or none is known."""

    def run(known: str, *urls: str) -> Outcome:
        sums = tmp_path / "checksums"
        sums.write_text("0  another.gz\n" + (f"{known}  text.gz\n" if known else ""))
        return nar("fetch", tmp_path / "got" / "text.gz", "--sums", sums, *urls)

    return run


@pytest.mark.parametrize("known", [SUM, ""], ids=["known", "unknown"])
def test_a_file_is_fetched_whole(known: str, fetch: Fetch, server: Any, tmp_path: Path) -> None:
    url, folder, _ = server
    (folder / "text.gz").write_bytes(TEXT)
    outcome = fetch(known, f"{url}/text.gz")
    assert outcome == Outcome(0, "", "")
    assert {path.name for path in (tmp_path / "got").iterdir()} == {"text.gz", "sha256sums"}
    assert (tmp_path / "got" / "text.gz").read_bytes() == TEXT
    assert (tmp_path / "got" / "sha256sums").read_text() == f"{SUM}  text.gz\n"


def test_what_is_there_and_has_its_checksum_is_not_asked_for_again(fetch: Fetch, server: Any, tmp_path: Path) -> None:
    url, folder, asked = server
    (folder / "text.gz").write_bytes(TEXT)
    for _ in range(2):
        assert fetch("", f"{url}/text.gz").code == 0
    assert asked == ["/text.gz"]
    (tmp_path / "got" / "text.gz").write_bytes(TEXT[:-20])
    assert fetch("", f"{url}/text.gz").code == 0 and asked == ["/text.gz"] * 2
    assert (tmp_path / "got" / "text.gz").read_bytes() == TEXT


def test_a_file_that_changed_since_it_first_came_is_refused(fetch: Fetch, server: Any, tmp_path: Path) -> None:
    url, folder, _ = server
    (folder / "text.gz").write_bytes(TEXT)
    assert fetch("", f"{url}/text.gz").code == 0
    (tmp_path / "got" / "text.gz").unlink()
    (folder / "text.gz").write_bytes(gzip.compress(b"another text"))
    outcome = fetch("", f"{url}/text.gz")
    assert outcome.code == 2 and "has another checksum than the one recorded" in outcome.stderr


def test_the_checksums_of_other_files_are_kept(nar: Nar, fetch: Fetch, server: Any, tmp_path: Path) -> None:
    url, folder, _ = server
    (folder / "text.gz").write_bytes(TEXT)
    assert nar("fetch", tmp_path / "got" / "more.gz", f"{url}/text.gz").code == 0
    assert fetch("", f"{url}/text.gz").code == 0
    assert (tmp_path / "got" / "sha256sums").read_text() == f"{SUM}  more.gz\n{SUM}  text.gz\n"


def test_an_md5_serves_as_well(fetch: Fetch, server: Any) -> None:
    url, folder, _ = server
    (folder / "text.gz").write_bytes(TEXT)
    assert fetch("0" * 32, f"{url}/text.gz").code == 2
    assert fetch(hashlib.md5(TEXT).hexdigest(), f"{url}/text.gz").code == 0


@pytest.mark.parametrize("bytes_lost", [0, 10])
def test_a_zip_file_is_an_archive_to_its_end(bytes_lost: int, fetch: Fetch, server: Any) -> None:
    url, folder, _ = server
    with zipfile.ZipFile(folder / "text.gz", "w") as archive:
        archive.writestr("text", "a house\n" * 100)
    content = (folder / "text.gz").read_bytes()
    (folder / "text.gz").write_bytes(content[: len(content) - bytes_lost])
    assert fetch("", f"{url}/text.gz").code == (2 if bytes_lost else 0)


def test_a_damaged_zip_file_is_refused(fetch: Fetch, server: Any) -> None:
    url, folder, _ = server
    with zipfile.ZipFile(folder / "text.gz", "w") as archive:
        archive.writestr("text", "a house\n" * 100)
    content = (folder / "text.gz").read_bytes()
    (folder / "text.gz").write_bytes(content.replace(b"a house", b"a mouse", 1))
    assert fetch("", f"{url}/text.gz").code == 2


@pytest.mark.parametrize("begun", [TEXT[:100], TEXT, PAGE], ids=["cut", "whole", "page"])
def test_what_an_interrupted_download_left_does_no_harm(
    begun: bytes, fetch: Fetch, server: Any, tmp_path: Path
) -> None:
    url, folder, _ = server
    (folder / "text.gz").write_bytes(TEXT)
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "text.gz.part").write_bytes(begun)
    assert fetch(SUM, f"{url}/text.gz").code == 0
    assert (tmp_path / "got" / "text.gz").read_bytes() == TEXT


def test_an_interrupted_download_goes_on_where_it_was(fetch: Fetch, server: Any, tmp_path: Path) -> None:
    url, folder, asked = server
    (folder / "parts-text.gz").write_bytes(TEXT)
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "text.gz.part").write_bytes(TEXT[:100])
    assert fetch(SUM, f"{url}/parts-text.gz").code == 0
    assert (tmp_path / "got" / "text.gz").read_bytes() == TEXT
    assert asked[0] == "/parts-text.gz from 100" and not any(
        "text.gz" in path and "from" not in path for path in asked[2:]
    )


def test_what_came_before_the_network_failed_is_kept(fetch: Fetch, tmp_path: Path) -> None:
    part = tmp_path / "got" / "text.gz.part"
    part.parent.mkdir()
    part.write_bytes(TEXT[:100])
    assert fetch(SUM, f"{NOWHERE}/text.gz").code == 2
    assert part.read_bytes() == TEXT[:100]


@pytest.mark.parametrize(
    ("served", "known", "complaint"),
    [
        (PAGE, "", "is an HTML page, not an archive"),
        (TEXT[:-20], "", "is no gzip or zip file, or cut short"),
        (b"", "", "is no gzip or zip file, or cut short"),
        (TEXT, "0" * 64, "has another checksum than the one recorded"),
    ],
    ids=["page", "cut", "empty", "another"],
)
@pytest.mark.parametrize("road", ["http", "file"])
def test_a_wrong_file_is_refused_in_one_line(
    served: bytes, known: str, complaint: str, road: str, fetch: Fetch, server: Any, tmp_path: Path
) -> None:
    url, folder, _ = server
    (folder / "text.gz").write_bytes(served)
    address = f"{url if road == 'http' else folder.as_uri()}/text.gz"
    outcome = fetch(known, address)
    assert outcome.code == 2 and not list((tmp_path / "got").iterdir())
    first, second = outcome.stderr.splitlines()
    assert first == f"nar fetch: {address} {complaint}"
    assert second.startswith("nar fetch: text.gz could not be had; ")


def test_the_next_address_serves_where_the_first_does_not(fetch: Fetch, server: Any, tmp_path: Path) -> None:
    url, folder, asked = server
    (folder / "page.gz").write_bytes(PAGE)
    (folder / "text.gz").write_bytes(TEXT)
    outcome = fetch(SUM, f"{url}/absent.gz", f"{url}/page.gz", f"{url}/text.gz", f"{url}/never.gz")
    assert outcome.code == 0 and (tmp_path / "got" / "text.gz").read_bytes() == TEXT
    assert asked == ["/absent.gz"] * 2 + ["/page.gz", "/text.gz"]  # an error is logged twice by the server


def test_a_folder_serves_as_well_and_says_what_it_lacks(fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "of mine.gz").write_bytes(TEXT)
    assert fetch(SUM, (tmp_path / "none.gz").as_uri(), (tmp_path / "of mine.gz").as_uri()).code == 0
    (tmp_path / "got" / "text.gz").unlink()
    outcome = fetch(SUM, (tmp_path / "none.gz").as_uri())
    assert outcome.code == 2 and outcome.stderr.startswith("nar fetch: text.gz could not be had")
    assert outcome.stderr.count("\n") == 1 and outcome.stderr.endswith("OFFLINE=FOLDER\n")


def test_without_curl_nothing_is_begun(fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fetch("", f"{NOWHERE}/text.gz").stderr == "nar fetch: the program curl is needed to download\n"
    assert not (tmp_path / "got").exists()
