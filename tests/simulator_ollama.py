"""Ollama to test against: real HTTP, `/api/chat` in objects a line, and what a server says of its models.

    with OllamaSimulator() as ollama:
        ollama.installed["llama3.2:latest"] = {"capabilities": ["completion"]}
        ... Ollama(name="ollama", base_url=ollama.base_url) ...

The model's name says what happens, in the words of `tests.simulator`. `num_predict` is obeyed; "cached" counts as newer
servers do; "nousage" counts nothing, as they do where a count would be 0.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.simulator import Script, Simulator, _Connection, _Reply, _Writer

LOAD_MS = 12


class _OllamaConnection(_Connection):
    simulator: "OllamaSimulator"
    path = re.compile(r"/api/chat")

    async def _route(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> None:
        installed = self.simulator.installed
        self.simulator.looks += path == "/api/tags"
        if (method, path) == ("GET", "/api/tags"):
            models = [{"name": name, "model": name, "size": 1, **_tag(installed[name])} for name in installed]
            self._whole(200, {"models": models})
        elif (method, path) == ("POST", "/api/show"):
            name = json.loads(raw)["model"]
            missing = {"error": f"model '{name}' not found"}
            self._whole(200, installed[name]) if name in installed else self._whole(404, missing)
        else:
            await super()._route(method, path, headers, raw)

    def _error(self, message: str, kind: str, code: str | None) -> dict[str, Any]:
        return {"error": message}

    def _reply(self, script: Script, body: dict[str, Any]) -> "_OllamaReply":
        options = body["options"]
        assert options["num_ctx"] > 0
        return _OllamaReply(
            script, {**body, "max_tokens": options["num_predict"]}, number=len(self.simulator.requests)
        )

    def _writer(self, script: Script) -> _Writer:
        return _LineWriter(self, script)

    def _head(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        """A head without a request id: Ollama knows none."""
        lines = {"Content-Type": content_type, **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.transport.write(f"HTTP/1.1 {status} Simulated\r\n{text}\r\n".encode())


class OllamaSimulator(Simulator):
    """Runs in a thread of this process while the `with` block lasts. `installed`: what `/api/show` says of each model;
    `looks`: how often somebody asked for the list."""

    def __init__(self, **where: Any) -> None:
        super().__init__(**where)
        self.installed: dict[str, dict[str, Any]] = {}
        self.looks = 0

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def _speak(self, open_connections: set[_Connection]) -> _Connection:
        return _OllamaConnection(self, open_connections)


def _tag(told: dict[str, Any]) -> dict[str, Any]:
    return {"remote_host": told["remote_host"]} if "remote_host" in told else {}


class _LineWriter(_Writer):
    """One object a line."""

    content_type = "application/x-ndjson"
    garbage = b"{this is not JSON\n"
    done = b""

    async def event(self, found: dict[str, Any]) -> None:
        await self.write(json.dumps(found, ensure_ascii=False).encode() + b"\n")


class _OllamaReply(_Reply):
    def opening(self) -> Iterator[dict[str, Any]]:
        if "thinking" in self._flags:
            yield self._line("", thinking="Let me ")
            yield self._line("", thinking="see.")

    def deltas(self) -> Iterator[dict[str, Any]]:
        for piece in self._pieces:
            yield self._line(piece)

    def closing(self) -> Iterator[dict[str, Any]]:
        yield self._last("")

    def whole(self) -> dict[str, Any]:
        return self._last("".join(self._pieces))

    def _line(self, text: str, **more: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, **more}
        return {
            "model": self._base["model"],
            "created_at": "2026-11-22T10:00:00Z",
            "message": message,
            "done": False,
        }

    def _last(self, text: str) -> dict[str, Any]:
        times = {"total_duration": 812345678, "load_duration": LOAD_MS * 1_000_000}
        return {**self._line(text), "done": True, "done_reason": self._reason, **times, **self._usage()}

    def _usage(self) -> dict[str, Any]:
        if "nousage" in self._flags:
            return {}
        if "cached" in self._flags:
            return {"prompt_eval_count": 120, "prompt_eval_cached_count": 64, "eval_count": 60}
        return {"prompt_eval_count": self._words_in, "eval_count": len(self._pieces)}
