import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import websocket

from cortex.errors import InputError
from cortex.events import Events
from serving.client.client import Client, ServerError
from serving.engine import fake_model
from serving.http.server_fixture import ServerProcess, running

FAKE = "serving.http.fake_server"
SILENCE: dict[str, list[int]] = {"unit": [], "time_bin": [], "value": []}


def events(*triples: tuple[int, int, int]) -> Events:
    columns = np.array(triples, np.int64).reshape(-1, 3).T
    return Events(unit=columns[0], time_bin=columns[1], value=columns[2])


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running(FAKE) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.url) as each:
        yield each


def exchange(url: str, request: bytes, *, timeout_s: float = 5.0) -> str:
    """Sends raw bytes and returns what the server says until it closes or falls silent."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=timeout_s) as raw:
        raw.sendall(request)
        said = b""
        while b"\r\n\r\n" not in said and (part := raw.recv(65536)):
            said += part
    return said.decode()


def test_decodes_a_window(client: Client) -> None:
    answer = client.decode(events((1, 3, 2), (0, 31, 5)))
    assert answer.velocity == (7.0, 2.0)
    assert (answer.unit, answer.model, answer.context_steps) == ("mm/s", "f" * 64, 8)
    assert answer.queue_ms >= 0 and answer.compute_ms >= 0


def test_an_empty_window_decodes(client: Client) -> None:
    assert client.decode(Events.empty()).velocity == (0.0, 0.0)


def test_the_model_card(client: Client) -> None:
    card = client.model()
    assert (card.name, card.velocity_unit, len(card.unit_ids)) == ("fake", "mm/s", 8)
    assert (card.grid.bin_us, card.grid.bins_per_step, card.grid.window_steps) == (5000, 4, 8)


def test_a_model_is_loaded_again_where_that_is_allowed(server: ServerProcess) -> None:
    refused = requests.post(f"{server.url}/model/reload", timeout=5)
    assert refused.status_code == 403 and "--allow_reload" in refused.json()["error"]
    with running(FAKE, "reload=1", "broken=3") as process, Client(process.url) as client:
        with client.stream() as stream:
            assert stream.step(events((1, 3, 2))).model == "f" * 64
            reloaded = requests.post(f"{process.url}/model/reload", timeout=5)
            assert reloaded.status_code == 200
            assert reloaded.json()["digest"] == client.model().digest == "e" * 64
            answer = stream.step(events((1, 3, 2)))
            assert (answer.model, answer.restarted, answer.context_steps) == ("e" * 64, True, 1)
            failed = requests.post(f"{process.url}/model/reload", timeout=5)
            assert failed.status_code == 409
            assert failed.json()["error"] == (
                "model: broken on purpose; model fake, eeeeeeeeeeee, serves on"
            )
            assert not stream.step(Events.empty()).restarted
        assert client.decode(Events.empty()).model == "e" * 64


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "body"),
        (b"\x00\xff\xfe", "body"),
        (b"{", "body"),
        (b"[]", "Expected `object`"),
        (b"[" * 100_000, "body"),
        (b'{"unit":[0],"time_bin":[0]}', "value"),
        (b'{"unit":["0"],"time_bin":[0],"value":[1]}', "Expected `int`"),
        (b'{"unit":[0.5],"time_bin":[0],"value":[1]}', "Expected `int`"),
        (b'{"unit":[true],"time_bin":[0],"value":[1]}', "Expected `int`"),
        (b'{"unit":[NaN],"time_bin":[0],"value":[1]}', "body"),
        (b'{"unit":[99999999999999999999],"time_bin":[0],"value":[1]}', "unit"),
        (b'{"unit":[],"time_bin":[],"value":[],"extra":1}', "extra"),
        (b'{"unit":[],"time_bin":[],"value":[],"deadline_ms":-1}', "deadline_ms"),
        (b'{"unit":[0],"time_bin":[],"value":[]}', "one length"),
        (b'{"unit":[0,8],"time_bin":[0,0],"value":[1,1]}', "event 1 has unit 8"),
        (b'{"unit":[-1],"time_bin":[0],"value":[1]}', "event 0 has unit -1"),
        (b'{"unit":[0],"time_bin":[32],"value":[1]}', "time_bin 32, expected 0 to 31"),
        (b'{"unit":[0],"time_bin":[0],"value":[0]}', "value 0"),
    ],
)
def test_a_bad_body_gets_400_and_one_line(server: ServerProcess, body: bytes, said: str) -> None:
    headers = {"Content-Length": str(len(body))}
    response = requests.post(f"{server.url}/decode", data=body, headers=headers, timeout=5)
    assert response.status_code == 400
    error = response.json()["error"]
    assert said in error and "\n" not in error


def test_random_bytes_never_upset_it(server: ServerProcess, client: Client) -> None:
    random = np.random.default_rng(0)
    good = json.dumps({"unit": [1], "time_bin": [2], "value": [3]}).encode()
    with requests.Session() as session:
        for _ in range(200):
            body = bytearray(good)
            for _ in range(random.integers(1, 6)):
                body[random.integers(len(body))] = random.integers(256)
            status = session.post(f"{server.url}/decode", data=bytes(body), timeout=5).status_code
            assert status in (200, 400)
    assert client.decode(Events.empty()).velocity == (0.0, 0.0)


def test_a_body_without_length_gets_411(server: ServerProcess) -> None:
    head = b"POST /decode HTTP/1.1\r\nHost: x\r\n"
    assert " 411 " in exchange(server.url, head + b"\r\n")
    chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert " 411 " in exchange(server.url, head + chunked)


def test_a_large_body_gets_413(server: ServerProcess) -> None:
    head = b"POST /decode HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n"
    assert " 413 " in exchange(server.url, head)


def test_a_slow_body_gets_408_and_holds_up_nobody(server: ServerProcess, client: Client) -> None:
    head = b'POST /decode HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"unit":'
    said: list[str] = []
    slow = threading.Thread(target=lambda: said.append(exchange(server.url, head)))
    slow.start()
    start = time.monotonic()
    assert client.decode(Events.empty()).velocity == (0.0, 0.0)
    assert time.monotonic() - start < 0.4
    slow.join()
    assert " 408 " in said[0]


def test_other_methods_and_paths(server: ServerProcess) -> None:
    response = requests.get(f"{server.url}/decode", timeout=5)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    response = requests.get(f"{server.url}/nothing", timeout=5)
    assert (response.status_code, response.json()) == (404, {"error": "404 Not Found"})


@pytest.mark.parametrize("value", [fake_model.RAISE, fake_model.NOT_A_NUMBER, fake_model.TOO_FEW])
def test_a_failing_model_gets_500_and_the_server_goes_on(client: Client, value: int) -> None:
    with pytest.raises(ServerError, match="the model") as caught:
        client.decode(events((0, 0, value)))
    assert caught.value.status == 500
    assert client.decode(events((0, 0, 1))).velocity == (1.0, 1.0)


def test_metrics_count_what_happened(server: ServerProcess, client: Client) -> None:
    client.decode(Events.empty())
    text = requests.get(f"{server.url}/metrics", timeout=5).text
    assert 'cortex_requests_total{endpoint="/decode",status="200"}' in text
    assert 'cortex_request_seconds_bucket{endpoint="/decode",le="0.008"}' in text
    assert "cortex_ready 1.0" in text
    assert f'cortex_model_info{{digest="{"f" * 64}",name="fake"}} 1.0' in text


def test_a_stream_decodes_in_order(client: Client) -> None:
    with client.stream() as stream:
        assert (stream.hello.units, stream.hello.model) == (8, "f" * 64)
        assert stream.step(events((0, 0, 1))).velocity == (1.0, 1.0)
        second = stream.step(events((0, 3, 2)))
        assert (second.velocity, second.context_steps, second.filled) == ((3.0, 2.0), 2, 0)
        again = stream.step(events((0, 0, 9)), step=1)
        assert (again.velocity, again.duplicate, second.duplicate) == ((3.0, 2.0), True, False)
        ahead = stream.step(Events.empty(), step=5)
        assert (ahead.velocity, ahead.context_steps, ahead.filled) == ((3.0, 2.0), 6, 3)
        with pytest.raises(InputError, match="behind"):
            stream.step(Events.empty(), step=2)
        with pytest.raises(InputError, match="open a new stream"):
            stream.step(Events.empty(), step=15)
        with pytest.raises(InputError, match="time_bin 4, expected 0 to 3"):
            stream.step(events((0, 4, 1)))
        assert stream.step(Events.empty()).context_steps == 7


def test_the_latest_velocity_of_a_stream(client: Client) -> None:
    with client.stream() as stream:
        name = stream.hello.stream
        before = client.latest(name)
        assert (before.velocity, before.age_s, before.state) == ((0.0, 0.0), None, "stale")
        stream.step(events((0, 0, 8)))
        latest = client.latest(name)
        assert latest.age_s is not None and latest.age_s > 0
        if latest.state in ("fresh", "held"):
            assert latest.velocity == (8.0, 1.0)
        else:
            assert latest.velocity[0] < 8.0
    for other in (name, 10**30):
        with pytest.raises(InputError, match="closed, or was never opened"):
            for _ in range(200):
                client.latest(other)
                time.sleep(0.01)


def test_an_evicted_stream_begins_again_and_says_so(client: Client) -> None:
    with client.stream() as first:
        first.step(events((0, 0, 8)))
        with client.stream():
            time.sleep(1.1)
            with client.stream() as third:
                again = first.step(events((0, 0, 1)))
                assert (again.velocity, again.context_steps) == ((1.0, 1.0), 1)
                assert again.restarted and again.filled == 0
                assert not third.step(Events.empty()).restarted
    text = client._request("GET", "/metrics").decode()
    assert "cortex_streams_evicted_total 2.0" in text
    assert "cortex_streams_restarted_total 1.0" in text


def test_garbage_frames_get_errors_and_the_stream_goes_on(server: ServerProcess) -> None:
    raw = websocket.create_connection("ws" + server.url.removeprefix("http") + "/stream")
    assert json.loads(raw.recv())["type"] == "hello"
    for frame in ("", "{", "[1]", '{"step":-1,"unit":[],"time_bin":[],"value":[]}', "\u0000"):
        raw.send(frame)
        reply = json.loads(raw.recv())
        assert (reply["step"], reply["status"]) == (None, 400)
    raw.send_binary(b"\xff\xfe")
    assert json.loads(raw.recv())["status"] == 400
    raw.send(json.dumps({"step": 0, **SILENCE}))
    assert json.loads(raw.recv())["velocity"] == [0.0, 0.0]
    raw.close()


def test_slots_are_bounded_and_come_back(client: Client) -> None:
    for _ in range(5):
        with client.stream() as first, client.stream() as second:
            assert first.step(Events.empty()).context_steps == 1
            assert second.step(Events.empty()).context_steps == 1
            with pytest.raises(ServerError, match="slot is taken"), client.stream():
                pass
        _wait_for_free_slots(client)


def _wait_for_free_slots(client: Client) -> None:
    for _ in range(200):
        try:
            with client.stream(), client.stream():
                return
        except ServerError:
            time.sleep(0.01)
    raise AssertionError("slots of closed streams did not come back")


def test_sigterm_under_load_loses_nothing() -> None:
    with running(FAKE, "delay_s=0.05") as server:
        leaving = threading.Event()
        outcomes: list[Any] = []

        def load() -> None:
            with requests.Session() as session:
                while not leaving.is_set():
                    try:
                        response = session.post(f"{server.url}/decode", json=SILENCE, timeout=10)
                        outcomes.append(response.status_code)
                    except requests.RequestException as error:
                        outcomes.append(error)

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        with Client(server.url) as client, client.stream() as stream:
            stream.step(Events.empty())
            time.sleep(0.2)
            server.terminate()
            while requests.get(f"{server.url}/ready", timeout=5).status_code == 200:
                time.sleep(0.01)
            assert requests.get(f"{server.url}/health", timeout=5).status_code == 200
            leaving.set()
            for thread in threads:
                thread.join()
            with pytest.raises(ServerError, match="leaving") as caught:
                for _ in range(100):
                    stream.step(Events.empty())
            assert caught.value.status == 1001
        code, stderr = server.finish()
        assert code == 0, stderr
        assert len(outcomes) > 20 and set(outcomes) == {200}, outcomes


def test_a_deadline_that_cannot_be_met_gets_429_at_once() -> None:
    with running(FAKE, "delay_s=0.1", "notice_s=0") as server, Client(server.url) as client:
        client.decode(Events.empty())
        with pytest.raises(ServerError) as caught:
            client.decode(Events.empty(), deadline_ms=20)
        assert caught.value.status == 429


def test_a_device_fault_ends_the_server() -> None:
    with running(FAKE) as server:
        with Client(server.url) as client, pytest.raises(ServerError) as caught:
            client.decode(events((0, 0, fake_model.FAULT)))
        assert caught.value.status == 503
        code, stderr = server.finish()
        assert code == 3 and "asked to fault" in stderr


def test_a_model_that_does_not_load_ends_the_server_with_2() -> None:
    server = ServerProcess(FAKE, ["broken=1"])
    code, stderr = server.finish()
    assert code == 2 and "model: broken on purpose\n" in stderr
