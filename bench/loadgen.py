"""Opens many streaming HTTP requests at once and reports how late each chunk came.

    python -m bench.loadgen URL -c 200 [-n 800] [--ramp 4] [-H 'K: V'] [-d JSON] [--each FILE] [--pid P]...

A raw asyncio protocol over plain HTTP/1.1; one regular expression per read is all it does with the bytes, so its own
CPU stays low (it reports that, too). A closed loop: `-c` clients, each takes the next of `-n` requests (default: one
each) as soon as its last one ended. `--ramp` spreads the first starts over so many seconds; without it they come at
once.

A chunk is a stamp "w<microseconds> " as `bench.upstream` writes them: the time between stamp and arrival is the chunk's
lateness. With `--end TEXT` a stream has to say TEXT, and stamps behind it do not count (the last event of our API
repeats the whole reply). `--expect K`: a stream that does not have exactly K stamps counts as an error.

URL, headers and body may name values of the request's line in `--each FILE` (JSON lines, from line `--first` on), as in
"{session}".

Prints one JSON object. Times in ms with p50, p95, p99 and max: `ttft` (start of the connection → first chunk), `gap`
(between the chunks of a stream), `relay` (lateness). For the `--pid` processes, children included: CPU seconds,
and per 1,000 chunks. `other_cpu_s` is what the machine spent on processes that are neither this, nor `--pid`, nor
`--helper-pid`: the noise of a shared machine. A run with much of it is to be repeated.
"""

import argparse
import asyncio
import collections
import json
import re
import resource
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import psutil
import uvloop

STAMP = re.compile(rb"w(\d{6,}) ")
TAIL = 64
"""Bytes of a read that are looked at again with the next one: longer than a stamp and than `--end`."""


def summary(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    figures = {
        f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 95, 99)
    }
    figures |= {"max": ordered[-1], "mean": statistics.fmean(ordered)}
    return {name: round(value * 1000, 2) for name, value in figures.items()}


class Stream(asyncio.Protocol):
    """One request on one connection. `over` is set to "" or to the kind of an error."""

    def __init__(self, request: bytes, end: bytes, started: float) -> None:
        self.request, self.end, self.started = request, end, started
        self.head, self.tail = b"", b""
        self.status = 0
        self.is_chunked, self.missing = False, 0
        self.has_ended = False
        self.arrived: list[float] = []
        self.late: list[float] = []
        self.complaint = b""
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.finish("closed early")

    def finish(self, kind: str) -> None:
        if not self.over.done():
            self.over.set_result(kind)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self.status:
            self.head += data
            at = self.head.find(b"\r\n\r\n")
            if at < 0:
                return
            data = self.head[at + 4 :]
            self.read_head(self.head[:at].lower())
        if self.status != 200:
            self.complaint += data[:500]
        self.missing -= len(data)
        window = self.tail + data
        last = 0
        if not self.has_ended:
            stop = window.find(self.end) if self.end else -1
            self.has_ended = stop >= 0
            for match in STAMP.finditer(window, 0, stop if stop >= 0 else len(window)):
                self.arrived.append(now)
                self.late.append(now - int(match[1]) / 1e6)
                last = match.end()
        self.tail = window[max(last, len(window) - TAIL) :]
        if self.tail.endswith(b"0\r\n\r\n") if self.is_chunked else self.missing <= 0:
            self.finish("" if self.status == 200 else f"status {self.status}")

    def read_head(self, head: bytes) -> None:
        self.status = int(head.split(b" ", 2)[1])
        self.is_chunked = b"transfer-encoding: chunked" in head
        length = re.search(rb"content-length:\s*(\d+)", head)
        self.missing = int(length[1]) if length else 0


class Load:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        url = urlsplit(arguments.url)
        self.host, self.port = url.hostname or "127.0.0.1", url.port or 80
        self.path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self.each: list[dict[str, str]] = []
        if arguments.each:
            lines = Path(arguments.each).read_text().splitlines()[arguments.first :]
            self.each = [json.loads(line) for line in lines[: arguments.requests]]
        self.ttft: list[float] = []
        self.total: list[float] = []
        self.gap: list[float] = []
        self.relay: list[float] = []
        self.errors: collections.Counter[str] = collections.Counter()
        self.complaint = ""
        self.ok = self.chunks = self.taken = 0
        self.wall_s = 0.0

    def request(self, number: int) -> bytes:
        given = self.arguments
        body = given.data.encode()
        lines = [
            f"{'POST' if body else 'GET'} {self.path} HTTP/1.1",
            f"host: {self.host}:{self.port}",
            "connection: close",
            *given.header,
        ]
        if body:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        head = "\r\n".join(lines)
        for name, value in (self.each[number] if self.each else {}).items():
            head = head.replace("{" + name + "}", value)
        return head.encode() + b"\r\n\r\n" + body

    async def run(self) -> None:
        began = time.monotonic()
        await asyncio.gather(*(self.client(number) for number in range(self.arguments.clients)))
        self.wall_s = time.monotonic() - began

    async def client(self, number: int) -> None:
        await asyncio.sleep(self.arguments.ramp * number / self.arguments.clients)
        while self.taken < self.arguments.requests:
            request = self.request(self.taken)
            self.taken += 1
            await self.stream(request)

    async def stream(self, request: bytes) -> None:
        given = self.arguments
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        end = given.end.encode()
        try:
            _, stream = await loop.create_connection(
                lambda: Stream(request, end, started), self.host, self.port
            )
        except OSError as problem:
            self.errors[type(problem).__name__] += 1
            await asyncio.sleep(0.05)
            return
        try:
            kind = await asyncio.wait_for(asyncio.shield(stream.over), given.timeout)
        except TimeoutError:
            kind = "timeout"
        stream.transport.abort()
        self.note(stream, kind, time.monotonic())

    def note(self, stream: Stream, kind: str, ended: float) -> None:
        given = self.arguments
        if not kind and given.end and not stream.has_ended:
            kind = "no end"
        if not kind and given.expect and len(stream.arrived) != given.expect:
            kind = "lost" if len(stream.arrived) < given.expect else "doubled"
        if kind:
            self.errors[kind] += 1
            self.complaint = self.complaint or (stream.complaint or stream.tail).decode("latin-1")[-300:]
        else:
            self.ok += 1
            self.total.append(ended - stream.started)
        if stream.arrived:
            self.ttft.append(stream.arrived[0] - stream.started)
            self.gap += [
                later - former for former, later in zip(stream.arrived, stream.arrived[1:], strict=False)
            ]
            self.relay += stream.late
            self.chunks += len(stream.arrived)


class Watch:
    """CPU seconds of this machine's processes since the beginning."""

    def __init__(self, servers: list[int], helpers: list[int]) -> None:
        self.servers, self.helpers = servers, helpers
        self.before, self.machine_before = self.now(), busy()

    def now(self) -> dict[int, float]:
        """CPU seconds of every process by its id."""
        seconds = {}
        for process in psutil.process_iter():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            seconds[process.pid] = times.user + times.system
        return seconds

    def since(self) -> tuple[float, float, float]:
        """Of the servers, of the helpers, and of everything else, what the hypervisor took included."""
        now, machine = self.now(), busy() - self.machine_before
        spent = {pid: seconds - self.before.get(pid, 0.0) for pid, seconds in now.items()}
        servers = sum(spent.get(pid, 0.0) for pid in family(self.servers))
        helpers = sum(spent.get(pid, 0.0) for pid in family(self.helpers))
        return servers, helpers, machine - servers - helpers - spent[psutil.Process().pid]


def busy() -> float:
    """Seconds that the cores of this machine were not idle, in all."""
    times = psutil.cpu_times()
    return float(sum(times[:8]) - times.idle - times.iowait)


def family(pids: Iterable[int]) -> set[int]:
    found = set()
    for pid in pids:
        try:
            process = psutil.Process(pid)
            found |= {pid, *(child.pid for child in process.children(recursive=True))}
        except psutil.Error:
            continue
    return found


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    arguments.requests = arguments.requests or arguments.clients
    watch = Watch(arguments.pid, arguments.helper_pid)
    load = Load(arguments)
    uvloop.run(load.run())
    servers_s, helpers_s, others_s = watch.since()
    own = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "clients": arguments.clients,
        "requests": load.taken,
        "ok": load.ok,
        "errors": dict(load.errors),
        "complaint": load.complaint,
        "wall_s": round(load.wall_s, 2),
        "chunks": load.chunks,
        "chunks_per_s": round(load.chunks / load.wall_s, 1),
        "ttft": summary(load.ttft),
        "total": summary(load.total),
        "gap": summary(load.gap),
        "relay": summary(load.relay),
        "server_cpu_s": round(servers_s, 2),
        "server_cpu_s_per_1000_chunks": round(1000 * servers_s / load.chunks, 4) if load.chunks else None,
        "helper_cpu_s": round(helpers_s, 2),
        "loadgen_cpu_s": round(own.ru_utime + own.ru_stime, 2),
        "other_cpu_s": round(others_s, 2),
    }


def parsed() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description="Many streams at once.")
    arguments.add_argument("url")
    arguments.add_argument("-c", "--clients", type=int, default=1)
    arguments.add_argument("-n", "--requests", type=int, default=0)
    arguments.add_argument("--ramp", type=float, default=0.0)
    arguments.add_argument("--timeout", type=float, default=60)
    arguments.add_argument("-H", "--header", action="append", default=[])
    arguments.add_argument("-d", "--data", default="")
    arguments.add_argument("--each", default="")
    arguments.add_argument("--first", type=int, default=0)
    arguments.add_argument("--expect", type=int, default=0)
    arguments.add_argument("--end", default="")
    arguments.add_argument("--pid", type=int, action="append", default=[])
    arguments.add_argument("--helper-pid", type=int, action="append", default=[])
    return arguments.parse_args()


if __name__ == "__main__":
    print(json.dumps(main(parsed())))
