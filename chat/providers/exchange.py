"""One question to a provider and its answer as events: what all adapters that speak HTTP share. They bring the
address, the headers, the body and the `Answer` that understands their format.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from chat.providers import problems, wire
from chat.providers.answers import Answer, json_or_none
from chat.providers.base import Call, Clocks, Event, Prompt, ProviderError

LONGEST_ERROR_BODY = 65536
ERROR_BODY_S = 10.0
LONGEST_STREAM = 256 << 20
LONGEST_LIST = 8 << 20
AFTER_FINISH_S = 5.0  # how long the count may lag behind the finish reason
REQUEST_ID_HEADERS = ("x-request-id", "x-generation-id", "request-id")
FIXED_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream, application/json",
    "Accept-Encoding": "identity",  # a compressing proxy would hold pieces back
    "User-Agent": "Aleph/1.0",
}


def stream(
    line: wire.Wire,
    url: str,
    *,
    prompt: Prompt,
    body: bytes,
    headers: Mapping[str, str],
    secrets: tuple[str, ...],
    call: Call,
    clocks: Clocks,
    reader: type[Answer] = Answer,
    refusal: Callable[..., ProviderError] = problems.refusal,
) -> Generator[Event, None, None]:
    """Ask, and yield the answer as it comes. See `base.Provider` for what is raised; neither `secrets` nor words of
    the prompt are in it. `refusal` reads an answer that is not 200."""
    said = tuple(content for _, content in prompt.messages)
    try:
        with line.send(
            url, body=body, headers={**FIXED_HEADERS, **headers}, call=call, clocks=clocks
        ) as incoming:
            call.request_id = _request_id(incoming.headers) or call.request_id
            if incoming.status != 200:
                incoming.end_within(ERROR_BODY_S)
                told = incoming.read_at_most(LONGEST_ERROR_BODY)
                raise refusal(incoming.status, incoming.headers, told, secrets=secrets, said=said)
            answer = reader(secrets=secrets, said=said)
            answer.request_id = call.request_id
            answer.introduce(incoming.headers)
            yield from _events(incoming, answer, call)
    except ProviderError as problem:
        problem.request_id = problem.request_id or call.request_id
        raise


def look_up(
    line: wire.Wire, url: str, *, headers: Mapping[str, str], clocks: Clocks, body: bytes | None = None
) -> Any:
    """What an address tells in JSON: to a GET, or with a body to a POST. For what is not an answer to a prompt. Raises
    ProviderError."""
    with line.send(
        url, body=body, headers={**FIXED_HEADERS, **headers}, call=Call(), clocks=clocks
    ) as incoming:
        told = incoming.read_at_most(LONGEST_LIST)
        if incoming.status != 200:
            raise problems.refusal(incoming.status, incoming.headers, told)
    found = json_or_none(told)
    if found is None:
        raise ProviderError("bad_response", detail="the body is not JSON")
    return found


def _events(incoming: wire.Incoming, answer: Answer, call: Call) -> Iterator[Event]:
    received = 0
    while not answer.done:
        try:
            data = incoming.read()
        except ProviderError:
            if answer.finished:
                break  # the text is whole, only the count or the formal end got lost
            raise
        if not data:
            break
        received += len(data)
        if received > LONGEST_STREAM:
            raise ProviderError("bad_response", detail="the answer does not end")
        was_finished = answer.finished
        try:
            yield from answer.feed(data)
        finally:
            call.request_id = answer.request_id
        if answer.begun:
            incoming.begun()
        if answer.finished and not was_finished:
            incoming.end_within(AFTER_FINISH_S)
    yield from answer.end()


def _request_id(headers: Mapping[str, str]) -> str:
    return next((headers[name][:200] for name in REQUEST_ID_HEADERS if headers.get(name)), "")
