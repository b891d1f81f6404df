"""A stand-in of the DANDI archive on this machine, for tests: real bytes, and faults on demand.

It answers what the client asks of the archive's REST API: `/info/`, the assets of a version in
pages, an asset's metadata, and its download, which goes through a redirect to where the bytes are,
as it does at the archive. Ranges work.
"""

import hashlib
import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

BLOCK_BYTES = 1 << 14
WHEN = "2022-01-13T04:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one answer.

    Attributes:
        status: comes in place of the answer; 0 for none.
        body: comes in place of the answer's body; None for none.
        flip: position in the file of a byte that comes wrong; -1 for none.
        cut_after: bytes of the body after which the connection is cut; -1 for none.
        stall_after: bytes of the body after which nothing more comes; -1 for none.
        pause_s: seconds between blocks of 16 KiB.
        whole: a range is not honoured.
    """

    status: int = 0
    body: bytes | None = None
    flip: int = -1
    cut_after: int = -1
    stall_after: int = -1
    pause_s: float = 0.0
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked: "info", "list", "metadata" or "bytes" of a path, from an offset on."""

    kind: str
    path: str
    start: int


@dataclass(kw_only=True)
class StandIn:
    """What the archive holds, what was asked of it, and what goes wrong.

    Attributes:
        url: address of the API.
        files: the bytes of every asset, by (dandiset, version) and path.
        metadata: what replaces a field of an asset's metadata, by path.
        page_size: assets on a page of a list.
        faults: by kind of request, what goes wrong with the next ones; None for nothing.
        requests: what was asked, in order.
    """

    url: str = ""
    files: dict[tuple[str, str], dict[str, bytes]]
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    page_size: int = 100
    faults: dict[str, deque[Fault | None]] = field(default_factory=lambda: defaultdict(deque))
    requests: list[Request] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def asked(self, kind: str) -> list[Request]:
        """The requests of a kind."""
        return [request for request in self.requests if request.kind == kind]


@contextmanager
def stand_in(files: dict[tuple[str, str], dict[str, bytes]]) -> Iterator[StandIn]:
    """Serves the files on a free port of the loopback interface."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.held = StandIn(url=f"http://127.0.0.1:{server.server_port}/api", files=files)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.held
    finally:
        server.held.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    held: StandIn

    def handle_error(self, request: object, client_address: object) -> None:
        """A client may hang up: that is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def held(self) -> StandIn:
        return cast(_Server, self.server).held

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match url.path.strip("/").split("/"):
            case ["api", "info"]:
                self._answer(self._fault("info", url.path), b'{"version": "0"}')
            case ["api", "dandisets", dandiset, "versions", version, "assets"]:
                fault = self._fault("list", url.path)
                page = int(parse_qs(url.query).get("page", ["1"])[0])
                self._answer(fault, self._page(dandiset, version, page))
            case ["api", "dandisets", _, "versions", _, "assets", asset]:
                fault = self._fault("metadata", self._path(asset))
                path = self._path(asset)
                digest = {"dandi:sha2-256": hashlib.sha256(self._bytes(asset)).hexdigest()}
                fields = {"path": path, "digest": digest, **self.held.metadata.get(path, {})}
                self._answer(fault, json.dumps(fields).encode())
            case ["api", "assets", asset, "download"]:
                self.send_response(HTTPStatus.FOUND)
                self.send_header("Location", f"/blobs/{asset}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            case ["blobs", asset]:
                start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
                fault = self._fault("bytes", self._path(asset), start)
                self._answer(fault, self._bytes(asset), start)
            case _:
                self._answer(None, None)

    def _fault(self, kind: str, path: str, start: int = 0) -> Fault | None:
        self.held.requests.append(Request(kind=kind, path=path, start=start))
        due = self.held.faults[kind]
        return due.popleft() if due else None

    def _page(self, dandiset: str, version: str, page: int) -> bytes | None:
        """A page of a version's assets; None where there is no such version."""
        if (dandiset, version) not in self.held.files:
            return None
        files = self.held.files[dandiset, version]
        assets = [
            {
                "asset_id": _asset_id(dandiset, version, i),
                "blob": _asset_id(dandiset, version, i),
                "zarr": None,
                "path": path,
                "size": len(files[path]),
                "created": WHEN,
                "modified": WHEN,
            }
            for i, path in enumerate(sorted(files))
        ]
        stop = page * self.held.page_size
        here = f"{self.held.url}/dandisets/{dandiset}/versions/{version}/assets/?order=path"
        answer = {
            "count": len(assets),
            "next": f"{here}&page={page + 1}" if stop < len(assets) else None,
            "previous": None,
            "results": assets[stop - self.held.page_size : stop],
        }
        return json.dumps(answer).encode()

    def _path(self, asset: str) -> str:
        dandiset, version, i = asset.split("_")
        return sorted(self.held.files[dandiset, version])[int(i)]

    def _bytes(self, asset: str) -> bytes:
        dandiset, version, _ = asset.split("_")
        return self.held.files[dandiset, version][self._path(asset)]

    def _answer(self, fault: Fault | None, body: bytes | None, start: int = 0) -> None:
        """Sends a body from an offset on, or 404 for None, or what the fault makes of it."""
        fault = fault or Fault()
        if fault.status or body is None:
            self.send_error(fault.status or HTTPStatus.NOT_FOUND)
            return
        if fault.body is not None:
            body, start = fault.body, 0
        if fault.flip >= 0:
            body = body[: fault.flip] + bytes([body[fault.flip] ^ 1]) + body[fault.flip + 1 :]
        if fault.whole:
            start = 0
        self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        part = body[start:]
        ends = [end for end in (fault.cut_after, fault.stall_after) if end >= 0]
        for at in range(0, min(ends, default=len(part)), BLOCK_BYTES):
            self.wfile.write(part[at : min([at + BLOCK_BYTES, *ends])])
            time.sleep(fault.pause_s)
        if fault.stall_after >= 0:
            self.held.closing.wait()
        self.close_connection = bool(ends)


def _asset_id(dandiset: str, version: str, i: int) -> str:
    return f"{dandiset}_{version}_{i}"
