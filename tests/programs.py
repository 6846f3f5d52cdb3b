"""What programs do in stories: begin a session at the product's API, and read a reply as events."""

import json
from collections.abc import Iterator
from typing import Any

import requests

from tests.product import Visitor, simulated_model

ROOT = "/api/v1/chat"


def session_of(program: Visitor, script: str, *, rate: int = 100) -> str:
    body = {
        "serviceType": "external_llm" if rate else "huggingface",
        "model": simulated_model(script, rate=rate),
    }
    made = program.post(f"{ROOT}/sessions", json=body).json()
    assert made["success"], made
    return f"{ROOT}/sessions/{made['data']['id']}"


def events_of(answer: requests.Response) -> Iterator[tuple[str, Any]]:
    """The events of a stream as (name, JSON)."""
    name = ""
    for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
