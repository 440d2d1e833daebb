"""A LanceDB server on this machine: its HTTP protocol, over Lance datasets in a folder.

It does as much of the protocol as reading takes, and keeps the requests.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

NO_LIMIT = 2**63 - 1  # what LanceDB sends for none


@dataclass
class LanceDBServer:
    """What runs, and what it was asked for.

    Args:
        folder: Where NAME.lance is the table NAME.
        url: For ``host_override``.
        api_key: Of the one who may read.
        requests: The path and the body of each request.
        disordered: Count the rows of a query from the table's end.
        broken: The paths' ends that fail.
    """

    folder: Path
    url: str
    api_key: str
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    disordered: bool = False
    broken: tuple[str, ...] = ()

    def count(self, end: str) -> int:
        """Return how many requests had this end of their path."""
        return sum(path.endswith(end) for path, _ in self.requests)


@contextmanager
def serving(folder: Path, api_key: str):
    """Serve the Lance datasets of a folder."""

    class Handler(_Handler):
        serves: LanceDBServer

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        url = f"http://127.0.0.1:{http.server_address[1]}"
        Handler.serves = LanceDBServer(folder, url, api_key)
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Handler.serves
        finally:
            http.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer in two packets would wait for the client's word
    serves: LanceDBServer

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        self.serves.requests.append((self.path, body))
        if self.headers["x-api-key"] != self.serves.api_key:
            return self._answer(401, b"who are you?")
        if self.path.endswith(self.serves.broken):
            return self._answer(400, b"out of order")
        _, _, _, name, *call = self.path.split("/")
        try:
            dataset = self._dataset(name.rpartition("$")[2], body)
        except (ValueError, OSError) as error:
            return self._answer(404, str(error).encode())
        try:
            return self._answer(200, *_answered("/".join(call), dataset, body, self))
        except Exception as error:
            return self._answer(400, str(error).encode())

    do_GET = do_POST

    def _dataset(self, name: str, body: dict[str, Any]) -> Any:
        dataset = lance.dataset(self.serves.folder / f"{name}.lance")
        branch, version = body.get("branch"), body.get("version")
        if branch is None and version is None:
            return dataset
        return dataset.checkout_version((branch, version))

    def _answer(self, code: int, data: bytes, kind: str = "application/json") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _answered(
    call: str, dataset: Any, body: dict[str, Any], handler: _Handler
) -> tuple[bytes, str]:
    if call == "query/":
        return _queried(dataset, body, handler.serves.disordered)
    if call == "describe/":
        fields = [_described(each) for each in dataset.schema]
        found: Any = {"version": dataset.version, "schema": {"fields": fields}}
    elif call == "count_rows/":
        found = dataset.count_rows(body.get("predicate"))
    elif call == "tags/version/":
        found = {"version": dataset.tags.list()[body["tag"]]["version"]}
    elif call == "branches/list/":
        found = {
            "branches": {
                name: {
                    "parentBranch": None,
                    "parentVersion": 1,
                    "createAt": 1,
                    "manifestSize": 1,
                }
                for name in dataset.branches.list()
            }
        }
    else:
        raise ValueError(f"no such call: {call}")
    return json.dumps(found).encode(), "application/json"


def _queried(dataset: Any, body: dict[str, Any], disordered: bool) -> tuple[bytes, str]:
    limit, offset = body.get("k", NO_LIMIT), body.get("offset") or 0
    found = dataset.scanner(
        columns=body.get("columns"),
        filter=body.get("filter"),
        with_row_id=body.get("with_row_id", False),
    ).to_table()
    if disordered:
        found = found.take(np.arange(len(found))[::-1])
    found = found.slice(offset, limit)
    # No order is promised.
    rng = np.random.Generator(np.random.Philox(key=len(found)))
    found = found.take(rng.permutation(len(found)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, found.schema) as writer:
        writer.write_table(found, max_chunksize=100)
    return sink.getvalue().to_pybytes(), "application/vnd.apache.arrow.file"


def _described(each: Any) -> dict[str, Any]:
    """Return a field as the server's JSON has it."""
    kind = each.type
    names = {pa.float32(): "float", pa.float64(): "double", pa.string(): "string"}
    found: dict[str, Any] = {"type": names.get(kind, str(kind))}
    if pa.types.is_fixed_size_list(kind):
        below = [_described(kind.value_field)]
        found = {"type": "fixed_size_list", "fields": below, "length": kind.list_size}
    return {"name": each.name, "type": found, "nullable": each.nullable}
