"""The real server around the fake model, for tests: fake_server.py [key=value ...]."""

import serving.http.gevent_first  # noqa: F401  # isort: skip

import itertools
import sys

from cortex.errors import InputError
from serving.engine.fake_model import DeviceFault, FakeModel
from serving.engine.model import Model
from serving.http.gunicorn_conf import run_server
from serving.http.settings import CallableSource, ServerSettings


def main(arguments: list[str]) -> int:
    """Runs the server.

    `delay_s` is the model's, `broken=N` makes it fail to load the N-th time, and `reload=1` lets
    clients load it again; each time it has another digest.
    """
    values = {"delay_s": 0.0, "notice_s": 0.5, "body_s": 0.5, "deadline_s": 2.0}
    values |= {"broken": 0.0, "reload": 0.0}
    values.update((key, float(value)) for key, value in (each.split("=") for each in arguments))
    times = itertools.count(1)

    def build() -> Model:
        time = next(times)
        if time == values["broken"]:
            raise InputError("model: broken on purpose")
        digest = f"{16 - time:x}" * 64
        return FakeModel(delay_s=values["delay_s"], slots=2, digest=digest)

    return run_server(
        ServerSettings(
            source=CallableSource(function=build, fatal=(DeviceFault,)),
            port=0,
            notice_s=values["notice_s"],
            body_s=values["body_s"],
            deadline_s=values["deadline_s"],
            drain_s=5.0,
            allow_reload=bool(values["reload"]),
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
