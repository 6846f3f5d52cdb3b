"""Text-generation-inference to test against: real HTTP and its own stream of tokens.

    with TGISimulator() as tgi:
        ... TGI(name="tgi", base_url=tgi.address("sim-words-5")) ...

A server has one model, so the path says what happens, in the words of `tests.simulator`. One token a word; the prompt
is counted by its words; "nousage" is an older server, which does not count the prompt.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.simulator import Script, Simulator, _Connection, _Reply, _Writer

TYPES = {
    400: "validation",
    422: "validation",
    424: "generation",
    429: "overloaded",
    500: "incomplete_generation",
    503: "healthcheck",
}
USER = re.compile(r"<\|start_header_id\|>user<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", re.DOTALL)
CONTEXT = (
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 250"
    " `max_new_tokens`"
)


class _TGIConnection(_Connection):
    path = re.compile(r"/(?:sim-[^/]*|generate_stream)")

    def _model(self, path: str, body: dict[str, Any]) -> str:
        return path.removeprefix("/")

    def _question(self, body: dict[str, Any]) -> str:
        return str(body["inputs"])

    def _error(self, message: str, kind: str, code: str | None) -> dict[str, Any]:
        if kind == "server_error":
            return {"error": f"Request failed during generation: {message}", "error_type": "generation"}
        return {"error": message, "error_type": kind}

    def _refuse(self, script: Script, headers: dict[str, str], body: dict[str, Any]) -> bool:
        status = script.numbers.get("error")
        parameters = body.get("parameters", {})
        if not body.get("inputs") or not 0 < parameters.get("top_p", 0.5) < 1:
            self._whole(422, {"error": "Input validation error", "error_type": "validation"})
        elif "context" in script.flags:
            self._whole(422, {"error": CONTEXT, "error_type": "validation"})
        elif status == 429:
            self._whole(429, {"error": "Model is overloaded", "error_type": "overloaded"})
        elif status:
            error = {"error": f"Refused with {status}", "error_type": TYPES.get(status, "x")}
            self._whole(status, error)
        else:
            return super()._refuse(script, headers, body)
        return True

    def _reply(self, script: Script, body: dict[str, Any]) -> "_TGIReply":
        parameters = body["parameters"]
        said = USER.findall(body["inputs"])
        asked = {
            "stream": body.get("stream"),
            "max_tokens": parameters["max_new_tokens"],
            "messages": [{"role": "user", "content": said[-1] if said else body["inputs"]}],
        }
        reply = _TGIReply(script, asked, number=len(self.simulator.requests))
        reply.words_in = len(body["inputs"].split())
        return reply

    def _writer(self, script: Script) -> _Writer:
        return _TokenWriter(self, script)


class TGISimulator(Simulator):
    """Runs in a thread of this process while the `with` block lasts."""

    def address(self, script: str) -> str:
        """The address of a server that answers as `script` says."""
        return f"http://{self.host}:{self.port}/{script}"

    def _speak(self, open_connections: set[_Connection]) -> _Connection:
        return _TGIConnection(self, open_connections)


class _TokenWriter(_Writer):
    """`data:` without a space, and no end mark."""

    done = b""

    async def event(self, found: dict[str, Any]) -> None:
        await self.write(b"data:" + json.dumps(found, ensure_ascii=False).encode() + b"\n\n")


class _TGIReply(_Reply):
    words_in = 0

    def opening(self) -> Iterator[dict[str, Any]]:
        yield from ()

    def deltas(self) -> Iterator[dict[str, Any]]:
        for piece in self._pieces:
            yield _token(piece)

    def closing(self) -> Iterator[dict[str, Any]]:
        whole = "".join(self._pieces)
        yield _token(
            "<|eot_id|>", special=True, generated_text=whole, details=self._details(len(self._pieces) + 1)
        )

    def whole(self) -> Any:
        return [{"generated_text": "".join(self._pieces), "details": self._details(len(self._pieces))}]

    def _details(self, generated: int) -> dict[str, Any]:
        reason = "length" if self._reason == "length" else "eos_token"
        details = {"finish_reason": reason, "generated_tokens": generated, "seed": None}
        return details if "nousage" in self._flags else {**details, "input_length": self.words_in}


def _token(text: str, *, special: bool = False, **more: Any) -> dict[str, Any]:
    said = {"id": 1, "text": text, "logprob": -0.1, "special": special}
    return {"index": 1, "token": said, "generated_text": None, "details": None, **more}
