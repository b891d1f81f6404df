"""Opens a DANDI archive, and words its failures."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from dandi.consts import DandiInstance, known_instances
from dandi.dandiapi import DandiAPIClient
from requests.adapters import HTTPAdapter

from cortex.errors import InputError

PUBLIC_ARCHIVE: str = known_instances["dandi"].api

# Seconds without a byte after which a connection counts as lost.
TIMEOUT_S = 30.0


class _TimedAdapter(HTTPAdapter):
    """Gives every request a time limit; the client sets none on most of its own."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        options["timeout"] = options.get("timeout") or TIMEOUT_S
        return super().send(request, **options)


@contextmanager
def open_archive(api_url: str) -> Iterator[DandiAPIClient]:
    """A client of the archive at `api_url`, which has answered once.

    It neither looks for newer releases of the client nor follows the address that the archive
    gives as its own: a mirror may repeat the public archive's.

    Raises:
        InputError: nothing answers there, or what answers fails.
    """
    os.environ["DANDI_NO_ET"] = "1"
    # Its failures are reported by the exceptions that reach the caller.
    logging.getLogger("dandi").setLevel(logging.CRITICAL)
    instance = DandiInstance(name="archive", gui=None, api=api_url.rstrip("/"))
    with DandiAPIClient(dandi_instance=instance) as client:
        for scheme in ("http://", "https://"):
            client.session.mount(scheme, _TimedAdapter())
        try:
            # Once, without the client's minute of retries: an address is oftener wrong than busy.
            answer = client.session.get(client.get_url("/info/"))
        except requests.RequestException as error:
            raise InputError(
                f"archive {api_url} cannot be reached: {reason(error)}; "
                "expected the address of a DANDI API"
            ) from error
        if answer.status_code >= 500:
            raise InputError(f"archive {api_url} fails: HTTP status {answer.status_code}")
        yield client


def reason(error: BaseException) -> str:
    """The innermost cause of a failed request, in one line."""
    seen = [error]
    while True:
        error = seen[-1]
        # urllib3 keeps a cause in `reason`, or as an argument, and seldom chains it.
        inner = [getattr(error, "reason", None), *reversed(error.args), error.__cause__]
        cause = next((e for e in inner if isinstance(e, BaseException) and e not in seen), None)
        if cause is None:
            break
        seen.append(cause)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
