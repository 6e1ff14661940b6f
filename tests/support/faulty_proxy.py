"""A line to an S3 server on which things go wrong: an HTTP proxy that does as it is told, a request at a time.

    with FaultyProxy(server.port) as proxy:
        storage = server.storage(place, endpoint=proxy.endpoint)
        proxy.fail(Fault.RESET_AFTER, "PUT")       the next PUT is carried out, and its answer lost
        storage.put(…)

It reads a whole request, asks the server, and passes the answer on, or not. Signatures stay valid, as it changes no
header. `times` is how often a fault strikes, `skip` how many matching requests pass before; the method "" is any.
"""

import enum
import http.client
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

ALWAYS = 1 << 30
SILENCE_SECONDS = 20


class Fault(enum.Enum):
    """What can go wrong with one request."""

    RESET_BEFORE = "the connection is reset, and the server never hears of it"
    RESET_AFTER = "the server carries it out, then the connection is reset"
    STATUS = "the proxy answers with an error, and the server never hears of it"
    STATUS_AFTER = "the server carries it out, and the answer is an error"
    SLOW = "the answer takes its time"
    SILENT = "there is no answer"
    CUT = "the answer ends before its length: at `keep` bytes of the body, in the middle if None"
    STALLED = "the answer stops there, and the connection stays open"


@dataclass
class Order:
    """A fault to come."""

    fault: Fault
    method: str
    match: re.Pattern[str]
    times: int
    skip: int
    status: int
    code: str
    keep: int | None
    seconds: float
    then: Callable[[], object]


class FaultyProxy:
    """Listens on a port of its own for the server at `port`; with `tls`, speaks TLS to its clients."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.target = port
        self.seen: list[str] = []
        self.headers: list[tuple[str, dict[str, str]]] = []
        """The path of each request with its headers, their names in lower case."""
        self._orders: list[Order] = []
        self._lock = threading.Lock()
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.endpoint = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail(
        self,
        fault: Fault,
        method: str,
        match: str = "",
        *,
        times: int = 1,
        skip: int = 0,
        status: int = 500,
        code: str = "InternalError",
        keep: int | None = None,
        seconds: float = 0.1,
        then: Callable[[], object] = lambda: None,
    ) -> None:
        """Order a fault for requests of `method` whose path and query match; `then` is called when it strikes."""
        order = Order(fault, method, re.compile(match), times, skip, status, code, keep, seconds, then)
        with self._lock:
            self._orders.append(order)

    def forget(self) -> None:
        """Forget all orders and all requests: the line is whole again."""
        with self._lock:
            self._orders.clear()
            self.seen.clear()
            self.headers.clear()

    def next_order(self, method: str, path: str, headers: dict[str, str]) -> Order | None:
        """Return the fault that strikes this request, if one does."""
        with self._lock:
            self.seen.append(f"{method} {path}")
            self.headers.append((path, headers))
            for order in self._orders:
                if order.times and order.method in ("", method) and order.match.search(path):
                    if order.skip:
                        order.skip -= 1
                        continue
                    order.times -= 1
                    return order
        return None

    def count(self, method: str, match: str = "") -> int:
        """Return how many requests of this kind came."""
        with self._lock:
            return sum(1 for line in self.seen if re.search(f"^{method} .*{match}", line))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = {name.lower(): value for name, value in self.headers.items()}
        order = self.proxy.next_order(self.command, self.path, sent)
        fault = order.fault if order else None
        if order:
            order.then()
        if fault is Fault.RESET_BEFORE:
            return self._reset()
        if order and fault is Fault.STATUS:
            return self._answer_error(order)
        if fault is Fault.SILENT:
            self.proxy.closing.wait(SILENCE_SECONDS)
            return self._reset()
        status, headers, data = self._ask(body)
        if fault is Fault.RESET_AFTER:
            return self._reset()
        if order and fault is Fault.STATUS_AFTER:
            return self._answer_error(order)
        if order and fault is Fault.SLOW:
            time.sleep(order.seconds)
        keep = len(data)
        if order and fault in (Fault.CUT, Fault.STALLED):
            keep = len(data) // 2 if order.keep is None else order.keep
        self._answer(status, headers, data, keep)
        if fault is Fault.STALLED:
            self.proxy.closing.wait(SILENCE_SECONDS)
        if fault in (Fault.CUT, Fault.STALLED):
            self.close_connection = True
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Let the server carry the request out; return its whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, keep: int) -> None:
        self.send_response_only(status)
        has_length = False
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection"):
                has_length = has_length or name.lower() == "content-length"
                self.send_header(name, value)
        if not has_length and status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:keep])

    def _answer_error(self, order: Order) -> None:
        text = f"<Error><Code>{order.code}</Code><Message>as the test ordered</Message></Error>"
        data = b"" if self.command == "HEAD" else text.encode()
        self._answer(order.status, [("Content-Type", "application/xml")], data, len(data))

    def _reset(self) -> None:
        """Close the connection so that the other side gets a reset, not an end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
