"""The REST client of the command line, against a server that answers as told."""

import socket
from collections.abc import Iterator

import pytest

from cli.errors import RefusedError, UnexpectedAnswerError, UnreachableError, UsageError
from cli.gateway import Gateway, PullWish
from shared.api import ImagePage, PullRequest, QueueView
from shared.states import State
from tests.support.scripted_gateway import (
    Reply,
    Script,
    problem,
    says,
    scripted_gateway,
    streams,
)
from tests.support.views import image_view, pull_view, pulling

Served = tuple[str, Script]


@pytest.fixture
def served() -> Iterator[Served]:
    with scripted_gateway() as found:
        yield found


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of a port that refuses connections, for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_a_pull_is_requested_in_the_gateway_s_own_words(served: Served) -> None:
    url, script = served
    script.on("POST /api/v1/pulls", says(pull_view(State.INIT), 202))
    assert Gateway(url).request_pull(PullWish("alpine:3", "daint")).status == 202
    forced = PullWish("alpine:3", force=True)
    assert Gateway(url).request_pull(forced).status == 202
    asked = [PullRequest.model_validate(body) for _, body in script.asked]
    assert [(ask.system, ask.force) for ask in asked] == [("daint", False), (None, True)]


def test_a_reference_is_one_quoted_segment_and_the_only_system_is_understood(
    served: Served,
) -> None:
    url, script = served
    script.on("GET /api/v1/images/_/docker/h%3A5000%2Fa%2Fb%3A1", says(image_view()))
    assert Gateway(url).image("h:5000/a/b:1", None)["id"] == "a" * 64


@pytest.mark.parametrize("reference", ["", " ", "Foo:3"])
def test_what_is_no_reference_is_refused_before_asking(served: Served, reference: str) -> None:
    url, script = served
    refused = pytest.raises(UsageError, match=r"is not an image reference.*write it like ubuntu")
    with refused:
        Gateway(url).request_pull(PullWish(reference))
    with refused:
        Gateway(url).image(reference, None)
    assert script.asked == []


def test_the_next_gateway_is_asked_when_one_does_not_answer(served: Served, deaf: str) -> None:
    url, script = served
    script.on("GET /api/v1/queue", says(QueueView(items=())))
    gateway = Gateway(f"{deaf},{url}")
    assert gateway.items("/queue") == []
    gateway.items("/queue")
    assert len(script.asked) == 2


def test_the_next_gateway_is_asked_when_one_has_lost_its_catalog(served: Served) -> None:
    url, script = served
    script.on("GET /api/v1/queue", says(QueueView(items=())))
    with scripted_gateway() as (broken_url, broken):
        broken.on("GET /api/v1/queue", problem(503, "catalog_unavailable", "no database"))
        assert Gateway(f"{broken_url},{url}").items("/queue") == []
        with pytest.raises(RefusedError, match="no database"):
            Gateway(broken_url).items("/queue")


def test_nobody_answering_says_where_was_asked_and_what_to_do(deaf: str) -> None:
    with pytest.raises(UnreachableError, match=r"(?s)Connection refused.*dray up.*DRAY_URL"):
        Gateway(deaf).items("/queue")


def test_a_problem_is_told_in_the_gateway_s_words(served: Served) -> None:
    url, script = served
    script.on("GET /api/v1/nodes", problem(404, "not_found", "there is no such thing"))
    with pytest.raises(RefusedError, match="there is no such thing") as caught:
        Gateway(url).items("/nodes")
    assert (caught.value.answered, caught.value.problem) == (404, "not_found")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"<html>Welcome</html>", 200, "text/html"),
        Reply(b"<html>Not Found</html>", 404, "text/html"),
        Reply(b"", 302, "text/html"),
        Reply(b"[1, 2]"),
        Reply(b'{"a":' * 100_000),
    ],
)
def test_a_stranger_at_the_address_is_recognised(served: Served, reply: Reply) -> None:
    url, script = served
    script.on("GET /api/v1/nodes", reply)
    with pytest.raises(UnexpectedAnswerError, match="is the address that of a Dray gateway"):
        Gateway(url).items("/nodes")


@pytest.mark.parametrize("url", ["", "localhost:7600", "http://h:port", "ftp://h", "http://h/api"])
def test_what_is_no_address_is_refused_before_asking(url: str) -> None:
    with pytest.raises(UsageError):
        Gateway(url)


def test_all_pages_of_images_are_read(served: Served) -> None:
    url, script = served
    first, second = image_view(), image_view(id="c" * 64)
    script.on("GET /api/v1/images?limit=500", says(ImagePage(items=(first,), next="k/1")))
    script.on(
        "GET /api/v1/images?after=k%2F1&limit=500", says(ImagePage(items=(second,), next=None))
    )
    assert [image["id"] for image in Gateway(url).images(None)] == [first.id, second.id]


def test_events_are_read_as_they_come(served: Served) -> None:
    url, script = served
    script.on("GET /api/v1/pulls/pull-1/events", streams(pulling(1, 9), pull_view(State.READY)))
    states = [event["state"] for event in Gateway(url).pull_events("pull-1")]
    assert states == ["PULLING", "READY"]


def test_a_stream_that_is_cut_off_ends_and_the_next_goes_to_another_gateway(
    served: Served, deaf: str
) -> None:
    url, script = served
    script.on("GET /api/v1/pulls/pull-1/events", streams(pulling(2, 9), cut=True))
    gateway = Gateway(f"{deaf},{url}")
    with pytest.raises(UnreachableError, match="broke"):
        next(gateway.pull_events("pull-1"))
    assert [event["progress"]["done"] for event in gateway.pull_events("pull-1")] == [2]
