"""Lets the bash of a recipe run Python programs in processes forked from one that has fairseq imported.

A stub of each program, read by every bash (BASH_ENV), sends its words, folder and environment to a server; the forked
process takes over the standard streams of the stub's client, so that pipes and redirections work as they do in use.
"""

import json
import shlex
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List

from tests.end_to_end.programs import forked

PROGRAMS = ("fairseq-preprocess", "fairseq-train", "fairseq-generate", "fairseq-hydra-train", "python")
CLIENT = """
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
request = {"words": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ), "pid": os.getpid()}
connection.sendall(json.dumps(request).encode() + b"\\n")
sys.exit(int(connection.makefile().readline()))
"""


@contextmanager
def warm_programs(folder: Path) -> Iterator[Dict[str, str]]:
    """Variables under which bash runs PROGRAMS warm; sockets and stubs stand in the folder."""
    address, client, stubs = folder / "socket", folder / "client.py", folder / "stubs.sh"
    client.write_text(CLIENT)
    python = shlex.join([sys.executable, "-I", "-S", str(client), str(address)])
    lines = [f'{name}() {{ command {python} {name} "$@"; }}\nexport -f {name}' for name in PROGRAMS]
    stubs.write_text("\n".join(lines) + "\n")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen()
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    try:
        yield {"BASH_ENV": str(stubs)}
    finally:
        listener.close()


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection:
        request = json.loads(connection.makefile().readline())
        words: List[str] = request["words"]
        if words[0] == "python":
            words = words[1:]
        streams = [f"/proc/{request['pid']}/fd/{number}" for number in range(3)]
        code = forked(words, request["folder"], streams, request["environment"])
        connection.sendall(f"{code if code >= 0 else 128 - code}\n".encode())
