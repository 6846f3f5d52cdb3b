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
PAUSE_S = 0.1


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
        self.memory = memory
        self.chats = chats
        self.client = Client(url, record, memory)
        self.is_void = False

    def run(self) -> None:
        began = time.monotonic()
        while self.outage.answered_s is None and self.chats:
            if time.monotonic() - began > TRIES_S:
                self.outage.answered_s = TRIES_S
            else:
                self._send(self.chats.pop(), began)
                time.sleep(PAUSE_S)

    def _send(self, chat: str, began: float) -> None:
        turn = f"probe-{secrets.token_hex(6)}"
        text = f"who-{self.record['id']}- {turn}"
        said = {"content": text, "model": self.model}
        response = self.client.program("POST", f"/sessions/{chat}/messages", said=said, key=turn, stream=True)
        if response is None or response.status_code != 200:
            self.chats.insert(0, chat)
            return
        for name, data in self.client.events(response, turn):
            if name == "start":
                if self.outage.taken_s is None:
                    self.outage.taken_s = time.monotonic() - began
                found = json.loads(data)
                self.memory.acknowledge(Acknowledged(turn, self.record["id"], text, chat, found["messageId"]))
            elif name == "done":
                self.outage.answered_s = time.monotonic() - began
