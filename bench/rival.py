"""LiteLLM's proxy, the yardstick: one worker on one core, without its database (so without spend log and virtual keys,
which favours it), in front of the same fake provider."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.machine import (
    HOST,
    ROOT,
    SERVER_CORE,
    Failed,
    Process,
    await_ready,
    free_port,
    listens,
    resident_mib,
)
from bench.product import FOLDER, Surroundings

EXECUTABLE = Path(os.environ.get("BENCH_VENV", ROOT / "var" / "bench-venv")) / "bin" / "litellm"


@dataclass(frozen=True, slots=True)
class Rival:
    url: str
    key: str
    pid: int

    @property
    def memory_mib(self) -> float:
        return resident_mib(self.pid)


@contextlib.contextmanager
def litellm(around: Surroundings, *, models: list[str]) -> Iterator[Rival]:
    if not EXECUTABLE.exists():
        raise Failed(f"{EXECUTABLE} is not there: make bench installs it")
    port, key = free_port(), f"sk-{secrets.token_urlsafe(32)}"
    config = FOLDER / "litellm.json"  # JSON is YAML, too
    routes = [
        {
            "model_name": model,
            "litellm_params": {
                "model": f"openai/{model}",
                "api_base": around.upstream_url,
                "api_key": "sk-bench",
            },
        }
        for model in models
    ]
    config.write_text(json.dumps({"model_list": routes, "general_settings": {"master_key": key}}))
    env = {
        "PATH": f"{EXECUTABLE.parent}:{os.environ['PATH']}",
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
    }
    command = [
        str(EXECUTABLE),
        "--config",
        str(config),
        "--host",
        HOST,
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    process = Process("litellm", command, env=env, log=FOLDER / "litellm.log", cores=SERVER_CORE)
    try:
        await_ready(process, lambda: listens(port), within_s=120)
        yield Rival(f"http://{HOST}:{port}/v1/chat/completions", key, process.pid)
    finally:
        process.stop()
