"""The Flask application: everything but POST /decode."""

import math
from collections.abc import Callable

import msgspec
from flask import Flask, Response
from flask_sock import Sock
from simple_websocket import Server
from werkzeug.exceptions import HTTPException

from cortex.errors import InputError
from serving.engine.engine import State
from serving.engine.errors import EngineError
from serving.engine.model import Model, ModelCard
from serving.http.bridge import Bridge
from serving.http.stream_socket import PATH as STREAM_PATH
from serving.http.stream_socket import StreamSockets
from serving.http.wire import MAX_BODY_BYTES, ErrorAnswer, Grid, LatestAnswer, ModelAnswer
from serving.telemetry.metrics import Metrics


def make_app(
    bridge: Bridge,
    sockets: StreamSockets,
    metrics: Metrics,
    *,
    reload: Callable[[], Model] | None,
) -> Flask:
    """The application.

    Args:
        bridge: the engine.
        sockets: serves stream connections.
        metrics: what /metrics shows.
        reload: loads the model that a client may ask for; None where it may not.
    """
    app = Flask(__name__)
    app.config["SOCK_SERVER_OPTIONS"] = {
        "max_message_size": MAX_BODY_BYTES,
        "ping_interval": 25,
    }

    @app.get("/health")
    def health() -> Response:
        """200 while the process is worth keeping."""
        status = 503 if bridge.state is State.FAILED else 200
        return _json({"state": bridge.state.value}, status)

    @app.get("/ready")
    def ready() -> Response:
        """200 while requests are wanted."""
        state = "leaving" if bridge.leaving else bridge.state.value
        return _json({"state": state}, 200 if bridge.ready else 503)

    @app.get("/model")
    def model() -> Response:
        """The model's card."""
        return _json(_model_answer(bridge.card))

    @app.post("/model/reload")
    def reload_model() -> Response:
        """Loads the model afresh and serves it, while the old one serves on; answers its card."""
        if reload is None:
            refusal = "reloading is off: start the server with --allow_reload"
            return _json(ErrorAnswer(refusal), 403)
        try:
            return _json(_model_answer(bridge.swap(reload)))
        except InputError as error:
            # Not the client's input: what lies where the server looks.
            still = f"; model {bridge.card.name}, {bridge.card.digest[:12]}, serves on"
            return _json(ErrorAnswer(f"{error}{still}"), 409)

    @app.get(f"{STREAM_PATH}/<int:stream>/latest")
    def latest(stream: int) -> Response:
        """A stream's velocity now."""
        velocity, age_s, state = bridge.latest(stream)
        return _json(
            LatestAnswer(
                velocity=velocity,
                age_s=age_s if math.isfinite(age_s) else None,
                state=state.value,
            )
        )

    @app.get("/metrics")
    def metrics_text() -> Response:
        """The metrics, for Prometheus."""
        return Response(metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")

    @Sock(app).route(STREAM_PATH)  # type: ignore[untyped-decorator]
    def stream(socket: Server) -> None:
        """One stream."""
        sockets.serve(socket)

    @app.errorhandler(InputError)
    def input_error(error: InputError) -> Response:
        return _json(ErrorAnswer(str(error)), 400)

    @app.errorhandler(EngineError)
    def engine_error(error: EngineError) -> Response:
        return _json(ErrorAnswer(str(error)), error.status)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = _json(ErrorAnswer(f"{error.code} {error.name}"), error.code or 500)
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    return app


def _model_answer(card: ModelCard) -> ModelAnswer:
    return ModelAnswer(
        name=card.name,
        digest=card.digest,
        grid=Grid(**card.grid.to_dict()),
        unit_ids=list(card.unit_ids),
        velocity_unit=card.velocity_unit,
    )


def _json(answer: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status, content_type="application/json")
