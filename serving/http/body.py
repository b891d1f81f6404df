"""Reads a request's body, bounded in size and in time."""

from collections.abc import Callable
from typing import Any

import gevent

from cortex.errors import InputError
from serving.http.wire import MAX_BODY_BYTES


class BodyError(Exception):
    """A body that was not read.

    Attributes:
        status: the HTTP status to answer.
    """

    def __init__(self, status: int, message: str) -> None:
        """Args: the status, and one line that says why."""
        super().__init__(message)
        self.status = status


def read_body(environ: dict[str, Any], timeout_s: float) -> bytes:
    """The body of a WSGI request that runs in a greenlet.

    Raises:
        BodyError: no Content-Length, too large, or not all of it came in time.
        InputError: Content-Length is no number, or the body is shorter.
    """
    length = _length(environ)
    # False: leave the block when time is up, and raise nothing. The stubs do not know it.
    with gevent.Timeout(timeout_s, False):  # type: ignore[arg-type]
        body: bytes = environ["wsgi.input"].read(length)
        if len(body) < length:
            raise InputError(f"body: ended after {len(body)} of {length} bytes")
        return body
    raise BodyError(408, f"body: {length} bytes did not come within {timeout_s:g} s")


def end_connection(environ: dict[str, Any]) -> Callable[[], None]:
    """A function that stops reading from a request's connection once it has been answered.

    Without it the server would go on to read the rest of a body that was refused.
    """
    connection = environ.get("gunicorn.socket")

    def end() -> None:
        if connection is not None:
            try:
                connection.shutdown(0)
            except OSError:
                return  # The client closed it first.

    return end


def _length(environ: dict[str, Any]) -> int:
    given = environ.get("CONTENT_LENGTH", "")
    if environ.get("HTTP_TRANSFER_ENCODING") or not given:
        raise BodyError(411, "body: Content-Length is required")
    if not given.isascii() or not given.isdigit():
        raise InputError("body: Content-Length must be a whole number")
    length = int(given)
    if length > MAX_BODY_BYTES:
        raise BodyError(413, f"body: {length} bytes, at most {MAX_BODY_BYTES} are allowed")
    return length
