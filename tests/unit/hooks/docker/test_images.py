"""What an engine's refusal of an image means, by the engine's own words."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import ImageNotFoundError
from airflow_mlops.hooks.docker.address import EngineAddress
from airflow_mlops.hooks.docker.images import pull_image

#: Figures of its port, tag and digest that are those of a gateway's errors.
REFERENCE = "127.0.0.1:50493/tiny:1.502"
DIGEST = f"127.0.0.1:5031/tiny@sha256:{'503' * 21}0"


class Engine:
    """An engine that cannot pull."""

    def __init__(self, words):
        self.words = words

    def pull(self, reference, **_):
        yield {"status": f"Pulling from {reference}"}
        yield {"error": self.words}


@pytest.mark.parametrize(
    ("reference", "words", "cure", "retriable"),
    [
        (
            REFERENCE,
            f"manifest for {REFERENCE} not found: manifest unknown",
            "correct the image's name",
            False,
        ),
        (DIGEST, f"manifest for {DIGEST} not found: manifest unknown", "correct the image's name", False),
        (REFERENCE, f"Head http://{REFERENCE}: no basic auth credentials", "write host", False),
        (REFERENCE, "received unexpected HTTP status: 502 Bad Gateway", "start the registry", True),
        (
            REFERENCE,
            "unexpected status from HEAD request: 503 Service Unavailable",
            "start the registry",
            True,
        ),
        (REFERENCE, "received unexpected HTTP status: 504 Gateway Timeout", "start the registry", True),
        (REFERENCE, "dial tcp 127.0.0.1:50493: connect: connection refused", "start the registry", True),
    ],
)
def test_a_refusal_says_what_to_do_and_whether_to_ask_again(reference, words, cure, retriable):
    with pytest.raises(ImageNotFoundError, match=f"Cure: {cure}") as caught:
        pull_image(Engine(words), EngineAddress("unix:///var/run/docker.sock"), reference, "far")
    assert caught.value.retriable is retriable
