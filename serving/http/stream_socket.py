"""WebSocket /stream: one stream of the model for each connection."""

import time
from typing import Any

import msgspec
from simple_websocket import ConnectionClosed, Server

from cortex.errors import InputError
from serving.engine.answers import Flag
from serving.engine.errors import BusyError, EngineError
from serving.http.bridge import Bridge
from serving.http.wire import (
    Grid,
    Hello,
    StepAnswer,
    StepError,
    StepRequest,
    events_of,
    parse,
)
from serving.telemetry.metrics import Metrics

PATH = "/stream"
# Frames that a client may send ahead of the answers before it is cut off.
MAX_BACKLOG = 256
_CLOSE_S = 1.0
_GOING_AWAY, _POLICY, _TRY_AGAIN = 1001, 1008, 1013


class StreamSockets:
    """Serves every open stream connection, and closes them when the server leaves."""

    def __init__(self, bridge: Bridge, *, metrics: Metrics, deadline_s: float) -> None:
        """Makes the handler.

        Args:
            bridge: the engine.
            metrics: where frames are counted.
            deadline_s: seconds within which a frame must be answered.
        """
        self._bridge = bridge
        self._metrics = metrics
        self._deadline_s = deadline_s
        self._idle: set[Server] = set()
        self._leaving = False

    def serve(self, socket: Server) -> None:
        """Answers one connection's frames until it ends."""
        try:
            stream = self._bridge.open_stream()
        except EngineError as refused:
            leaving = not isinstance(refused, BusyError)
            socket.close(_GOING_AWAY if leaving else _TRY_AGAIN, str(refused)[:120])
            return
        try:
            socket.send(self._hello(stream))
            while not self._leaving:
                frame = self._receive(socket)
                if len(socket.input_buffer) > MAX_BACKLOG:
                    socket.close(_POLICY, f"more than {MAX_BACKLOG} frames ahead of the answers")
                    return
                socket.send(self._answer(stream, frame))
            socket.close(_GOING_AWAY, "the server is leaving")
        except ConnectionClosed:
            pass
        finally:
            self._bridge.close_stream(stream)
        # Closing over unread frames would reset the connection, and the client would lose the
        # reason: give its own close frame a moment to be read.
        socket.thread.join(timeout=_CLOSE_S)

    def leave(self) -> None:
        """Closes every connection with 1001, those in a decode once it is answered."""
        self._leaving = True
        for socket in list(self._idle):
            try:
                socket.close(_GOING_AWAY, "the server is leaving")
            except (ConnectionClosed, OSError):
                continue
            finally:
                # `close` does not wake the greenlet that waits for a frame.
                socket.event.set()

    def _receive(self, socket: Server) -> Any:
        self._idle.add(socket)
        try:
            return socket.receive()
        finally:
            self._idle.discard(socket)

    def _hello(self, stream: int) -> str:
        card = self._bridge.card
        hello = Hello(
            stream=stream,
            model=card.digest,
            grid=Grid(**card.grid.to_dict()),
            units=len(card.unit_ids),
            velocity_unit=card.velocity_unit,
        )
        return msgspec.json.encode(hello).decode()

    def _answer(self, stream: int, frame: str | bytes) -> str:
        start = time.monotonic()
        step: int | None = None
        status = 200
        answer: StepAnswer | StepError
        try:
            request = parse(frame, StepRequest, "frame")
            step = request.step
            self._metrics.events(PATH, len(request.unit))
            answer = self._step(stream, request)
        except InputError as bad:
            status, answer = 400, StepError(step=step, error=str(bad), status=400)
        except EngineError as failed:
            status = failed.status
            answer = StepError(step=step, error=str(failed), status=status)
            self._metrics.refused(type(failed).__name__)
        self._metrics.request(PATH, status, time.monotonic() - start)
        return msgspec.json.encode(answer).decode()

    def _step(self, stream: int, request: StepRequest) -> StepAnswer:
        answer = self._bridge.step(stream, request.step, events_of(request), self._deadline_s)
        return StepAnswer(
            step=request.step,
            velocity=answer.velocity,
            context_steps=answer.context_steps,
            filled=answer.filled,
            duplicate=Flag.DUPLICATE in answer.flags,
            restarted=Flag.RESTARTED in answer.flags,
            model=answer.digest,
            queue_ms=answer.queue_s * 1e3,
            compute_ms=answer.compute_s * 1e3,
        )
