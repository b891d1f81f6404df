"""A client of the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn

import msgspec
import requests
import websocket

from cortex.errors import InputError
from cortex.events import Events
from serving.http.wire import (
    DecodeAnswer,
    DecodeRequest,
    ErrorAnswer,
    Hello,
    LatestAnswer,
    ModelAnswer,
    StepAnswer,
    StepError,
    StepRequest,
    columns_of,
)


class ServerError(Exception):
    """The server did not answer the request.

    Attributes:
        status: the HTTP status; 0 when there was no connection.
    """

    def __init__(self, status: int, message: str) -> None:
        """Args: the status, and the server's one line."""
        super().__init__(message)
        self.status = status


class Stream:
    """One stream of the server's model.

    Attributes:
        hello: what the server said of its model.
        next_step: number of the step that `step` sends next.
    """

    def __init__(self, socket: websocket.WebSocket) -> None:
        """Takes over a connection, and reads the server's greeting."""
        self._socket = socket
        self.next_step = 0
        self.hello = msgspec.json.decode(self._receive(), type=Hello)

    def step(self, events: Events, *, step: int | None = None) -> StepAnswer:
        """Decodes one step.

        Args:
            events: the step's events, with time bins within the step.
            step: its number, when it is not the next: a repeated one, or one after a gap.

        Raises:
            InputError: the server refused the events or the step; the stream can go on.
            ServerError: the server did not answer, or closed the stream.
        """
        number = self.next_step if step is None else step
        request = StepRequest(step=number, **columns_of(events))
        try:
            self._socket.send(msgspec.json.encode(request).decode())
        except (websocket.WebSocketException, OSError) as error:
            raise ServerError(0, f"the stream is closed: {error}") from error
        frame = self._receive()
        try:
            answer = msgspec.json.decode(frame, type=StepAnswer)
        except msgspec.ValidationError:
            _refuse(msgspec.json.decode(frame, type=StepError))
        self.next_step = number + 1
        return answer

    def close(self) -> None:
        """Ends the stream."""
        self._socket.close()

    def _receive(self) -> bytes:
        try:
            opcode, data = self._socket.recv_data()
        except (websocket.WebSocketException, OSError) as error:
            raise ServerError(0, f"the stream is closed: {error}") from error
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            code = int.from_bytes(data[:2], "big")
            raise ServerError(code, f"the server closed the stream: {data[2:].decode()}")
        return bytes(data)


class Client:
    """Talks to one server over HTTP. Use it as a context manager, or `close` it."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        """Makes a client; nothing is sent yet.

        Args:
            url: the server's, such as http://localhost:8080.
            timeout_s: seconds to wait for an answer.
        """
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()

    def __enter__(self) -> "Client":
        """Returns the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the connections."""
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()

    def model(self) -> ModelAnswer:
        """The server's model. Raises ServerError."""
        return msgspec.json.decode(self._request("GET", "/model"), type=ModelAnswer)

    def decode(self, events: Events, *, deadline_ms: float | None = None) -> DecodeAnswer:
        """Decodes one window.

        Args:
            events: its events, with time bins from the window's first.
            deadline_ms: milliseconds within which the answer is of use; None for the server's.

        Raises:
            InputError: the server refused the events.
            ServerError: the server did not answer.
        """
        request = DecodeRequest(**columns_of(events), deadline_ms=deadline_ms)
        body = self._request("POST", "/decode", msgspec.json.encode(request))
        return msgspec.json.decode(body, type=DecodeAnswer)

    def latest(self, stream: int) -> LatestAnswer:
        """A stream's velocity now, without waiting for its next step.

        Args:
            stream: its name, as Stream.hello gives it.

        Raises:
            InputError: the stream is not open.
            ServerError: the server did not answer.
        """
        body = self._request("GET", f"/stream/{stream}/latest")
        return msgspec.json.decode(body, type=LatestAnswer)

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """Opens a stream, and closes it at the end. Raises ServerError."""
        url = "ws" + self._url.removeprefix("http") + "/stream"
        try:
            socket = websocket.create_connection(url, timeout=self._timeout_s)
        except (websocket.WebSocketException, OSError) as error:
            raise ServerError(0, f"{url}: {error}") from error
        try:
            yield Stream(socket)
        finally:
            socket.close()

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        url = self._url + path
        try:
            response = self._session.request(method, url, data=body, timeout=self._timeout_s)
        except requests.RequestException as error:
            raise ServerError(0, f"{url}: {error}") from error
        if response.ok:
            return response.content
        try:
            message = msgspec.json.decode(response.content, type=ErrorAnswer).error
        except msgspec.DecodeError:
            message = f"{url}: {response.status_code} {response.reason}"
        if response.status_code == 400:
            raise InputError(message)
        raise ServerError(response.status_code, message)


def _refuse(error: StepError) -> NoReturn:
    if error.status == 400:
        raise InputError(error.error)
    raise ServerError(error.status, error.error)
