"""After a server came back: how long until the next send is taken, and answered."""

import json
import secrets
import threading
import time
from typing import Any

from chaos.client import Client
from chaos.memory import Acknowledged, Memory
from chaos.report import Outage

TRIES_S = 60.0
EACH_S = 0.25
"""Between two sends. None waits for the one before, which may be a worker's that has just been killed."""


class Probe(threading.Thread):
    """Sends one message after the other until one was answered. `is_void`: meanwhile a server went away again."""

    def __init__(
        self,
        outage: Outage,
        record: dict[str, Any],
        *,
        model: str,
        url: str,
        memory: Memory,
        chats: list[str],
    ) -> None:
        super().__init__(name="probe", daemon=True)
        self.outage = outage
        self.record = record
        self.model = model
        self.url = url
        self.memory = memory
        self.chats = chats
        self.is_void = False
        self._began = time.monotonic()
        self._answered = threading.Event()

    def run(self) -> None:
        sends: list[threading.Thread] = []
        while not self._answered.wait(EACH_S if sends else 0) and time.monotonic() - self._began < TRIES_S:
            if self.chats:
                sends.append(threading.Thread(target=self._send, args=(self.chats.pop(),), daemon=True))
                sends[-1].start()
        if not self._answered.is_set():
            self.outage.answered_s = TRIES_S

    def _send(self, chat: str) -> None:
        try:
            self._say_in(chat)
        finally:
            self.chats.insert(0, chat)

    def _say_in(self, chat: str) -> None:
        client = Client(self.url, self.record, self.memory)
        turn = f"probe-{secrets.token_hex(6)}"
        text = f"who-{self.record['id']}- {turn}"
        said = {"content": text, "model": self.model}
        response = client.program("POST", f"/sessions/{chat}/messages", said=said, key=turn, stream=True)
        if response is None or response.status_code != 200:
            return
        for name, data in client.events(response, turn):
            since_s = time.monotonic() - self._began
            if name == "start":
                self.outage.taken_s = min(since_s, self.outage.taken_s or since_s)
                found = json.loads(data)
                self.memory.acknowledge(Acknowledged(turn, self.record["id"], text, chat, found["messageId"]))
            elif name == "done" and not self._answered.is_set():
                self.outage.answered_s = since_s
                self._answered.set()
