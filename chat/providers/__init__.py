"""The providers Aleph can talk to, and which of them this installation has connected. Knows no settings:
whoever starts the process hands over the environment."""

from collections.abc import Mapping

from chat.providers import (
    anthropic,
    cerebras,
    compatible,
    deepseek,
    gemini,
    huggingface,
    n8n,
    ollama,
    openai,
    openrouter,
    tgi,
    together,
)
from chat.providers.base import Provider
from chat.providers.demo import Demo
from chat.providers.spec import ConfigurationError, ProviderSpec

__all__ = ["LABELS", "REGISTRY", "ConfigurationError", "ProviderSpec", "configure", "missing"]

DEMO_SPEED = "ALEPH_DEMO_WORDS_PER_SECOND"

REGISTRY: dict[str, ProviderSpec] = {
    spec.name: spec
    for spec in (
        openai.SPEC,
        anthropic.SPEC,
        gemini.SPEC,
        deepseek.SPEC,
        huggingface.SPEC,
        openrouter.SPEC,
        together.SPEC,
        cerebras.SPEC,
        n8n.SPEC,
        tgi.SPEC,
        compatible.SPEC,
        ollama.SPEC,
    )
}
LABELS: dict[str, str] = {**{name: spec.label for name, spec in REGISTRY.items()}, "demo": "Aleph"}


def configure(env: Mapping[str, str]) -> dict[str, Provider]:
    """The connected providers by name; "demo" is always among them. Empty values count as not set. Raises
    ConfigurationError for an address, key, setting or speed that cannot work."""
    found = {name: spec.connect(env) for name, spec in REGISTRY.items()}
    connected = {name: provider for name, provider in found.items() if provider is not None}
    ways = tuple((spec.label, spec.required[0]) for spec in REGISTRY.values())
    connected["demo"] = Demo(words_per_second=_demo_speed(env), ways_to_connect=ways)
    return connected


def missing(name: str) -> tuple[str, ...]:
    """The environment variables that would connect a provider; () for "demo", which needs none. Raises
    KeyError for a name that is no provider."""
    return () if name == "demo" else REGISTRY[name].required


def _demo_speed(env: Mapping[str, str]) -> float:
    value = env.get(DEMO_SPEED, "").strip() or "40"
    try:
        speed = float(value)
    except ValueError:
        speed = 0
    if not 0 < speed <= 1_000_000:
        raise ConfigurationError(f"{DEMO_SPEED} is not a number of words per second")
    return speed
