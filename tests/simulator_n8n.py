"""n8n to test against: real HTTP, a workflow behind a webhook, as n8n 2.41 answers.

    with N8nSimulator() as n8n:
        ... N8n(name="n8n", base_url=n8n.webhook, api_key=TOKEN) ...

The model's name says what happens, in the words of `tests.simulator`. It streams; "json" answers in one piece, with the
raw usage of the provider behind it ("cached"), or "nousage" with `tokensUsed` alone. A refusal is the provider's, passed on
by the workflow of `docs/n8n`; n8n's own failures are "workflow" (a node failed), "starting", "nothing" (an empty 200),
"nodata" and "late" (the execution was cancelled), to be put first ("sim-nodata").
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.simulator import RETRY_AFTER_S, Request, Script, Simulator, _Connection, _Reply
from tests.simulator_ollama import _LineWriter

TOKEN = "a-long-random-text-for-the-webhook"
OWN = re.compile(r"sim-(workflow|starting|nothing|nodata|late)")


class _N8nConnection(_Connection):
    path = re.compile(r"/webhook/aleph-chat")

    async def _complete(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> None:
        own = OWN.fullmatch(str(json.loads(raw).get("model")))
        if headers.get("x-aleph-token") != TOKEN:
            self._text(403, "Authorization data is wrong!")
        elif own:
            self.simulator.requests.append(Request(path, headers, json.loads(raw), raw))
            self._fail(own[1])
        elif self.path.fullmatch(path):
            await super()._complete(method, path, headers, raw)
        else:
            told = {
                "code": 404,
                "message": 'The requested webhook "POST x" is not registered.',
                "stacktrace": "x",
            }
            self._whole(404, told)

    def _fail(self, how: str) -> None:
        if how == "workflow":
            self._whole(500, {"message": "Error in workflow"})
        elif how == "late":
            text = "The execution was cancelled because it timed out"
            self._whole(500, {"code": 0, "message": text, "stacktrace": "x"})
        elif how == "nodata":
            text = "Workflow executed successfully but no data was returned"
            self._whole(200, {"message": text})
        elif how == "starting":
            self._text(404, "<!DOCTYPE html><pre>Cannot POST /webhook/aleph-chat</pre>")
        else:
            self._text(200, "")

    def _text(self, status: int, text: str) -> None:
        self._head(status, "text/html; charset=utf-8", {"Content-Length": str(len(text))})
        self.transport.write(text.encode())

    def _error(self, message: str, kind: str, code: str | None) -> dict[str, Any]:
        if kind == "server_error":
            return _line("error", content=message)
        limited = code == "rate_limit_exceeded"
        told = {"code": code or "provider_error", "type": kind, "message": message}
        return {"error": {**told, "retry_after": str(RETRY_AFTER_S) if limited else None}}

    def _reply(self, script: Script, body: dict[str, Any]) -> "_N8nReply":
        asked = {**body, "stream": True, "max_tokens": body["maxTokens"]}
        return _N8nReply(script, asked, number=len(self.simulator.requests))

    def _writer(self, script: Script) -> "_LineWriter":
        return _N8nWriter(self, script)

    def _head(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        """A head without a request id, and without the provider's Retry-After, which no workflow passes on."""
        lines = {"Content-Type": content_type, **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if name != "Retry-After")
        self.transport.write(f"HTTP/1.1 {status} Simulated\r\n{text}\r\n".encode())


class N8nSimulator(Simulator):
    """Runs in a thread of this process while the `with` block lasts."""

    @property
    def webhook(self) -> str:
        return f"http://{self.host}:{self.port}/webhook/aleph-chat"

    def _speak(self, open_connections: set[_Connection]) -> _Connection:
        return _N8nConnection(self, open_connections)


class _N8nWriter(_LineWriter):
    content_type = "application/json; charset=utf-8"


class _N8nReply(_Reply):
    def opening(self) -> Iterator[dict[str, Any]]:
        yield _line("begin")

    def deltas(self) -> Iterator[dict[str, Any]]:
        for piece in self._pieces:
            yield _line("item", content=piece)

    def closing(self) -> Iterator[dict[str, Any]]:
        yield _line("end")

    def whole(self) -> dict[str, Any]:
        usage = self._usage()
        found = {
            "content": "".join(self._pieces),
            "tokensUsed": usage["total_tokens"],
            "model": self._base["model"],
            "provider": "openai",
        }
        return found if "nousage" in self._flags else {**found, "finishReason": self._reason, "usage": usage}


def _line(kind: str, **more: Any) -> dict[str, Any]:
    where = {"nodeId": "a2", "nodeName": "AI Agent", "itemIndex": 0, "runIndex": 0}
    return {"type": kind, **more, "metadata": {**where, "timestamp": 1795341600000}}
