"""The providers Aleph can talk to, and which of them this installation has connected. Knows no settings:
whoever starts the process hands over the environment."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from urllib.parse import urlsplit

from chat.providers import anthropic
from chat.providers.anthropic import Anthropic
from chat.providers.base import Provider
from chat.providers.demo import Demo
from chat.providers.gemini import Gemini
from chat.providers.openai_compatible import Dialect, OpenAICompatible

DEMO_SPEED = "ALEPH_DEMO_WORDS_PER_SECOND"


class ConfigurationError(ValueError):
    """An environment value that cannot work. Names the variable, never a key."""


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """One provider: the variables that connect it, and the `adapter` that speaks its protocol. `key_variable`
    "" means that it takes no key and is connected by its address. `base_path` is appended to an address that
    has no path. `version_variable`: what pins another version of the API, a date, "" where it has none."""

    label: str
    key_variable: str
    url_variable: str
    default_base_url: str
    adapter: Callable[..., Provider]
    base_path: str = ""
    version_variable: str = ""

    @property
    def required(self) -> tuple[str, ...]:
        return (self.key_variable or self.url_variable,)


REGISTRY: dict[str, ProviderSpec] = {
    "openai": ProviderSpec(
        label="OpenAI",
        key_variable="OPENAI_API_KEY",
        url_variable="OPENAI_BASE_URL",
        default_base_url="https://api.openai.com/v1",
        adapter=partial(
            OpenAICompatible,
            dialect=Dialect(
                output_cap="max_completion_tokens", include_obfuscation=False, user_field="safety_identifier"
            ),
        ),
    ),
    "anthropic": ProviderSpec(
        label="Anthropic",
        key_variable="ANTHROPIC_API_KEY",
        url_variable="ANTHROPIC_BASE_URL",
        default_base_url="https://api.anthropic.com",
        adapter=Anthropic,
        version_variable="ANTHROPIC_VERSION",
    ),
    "gemini": ProviderSpec(
        label="Google Gemini",
        key_variable="GEMINI_API_KEY",
        url_variable="GEMINI_BASE_URL",
        default_base_url="https://generativelanguage.googleapis.com/v1",
        adapter=Gemini,
        base_path="/v1",
    ),
    "deepseek": ProviderSpec(
        label="DeepSeek",
        key_variable="DEEPSEEK_API_KEY",
        url_variable="DEEPSEEK_BASE_URL",
        default_base_url="https://api.deepseek.com",
        adapter=partial(
            OpenAICompatible,
            dialect=Dialect(user_field="user_id", extra={"thinking": {"type": "disabled"}}),
        ),
    ),
    "huggingface": ProviderSpec(
        label="Hugging Face",
        key_variable="HUGGINGFACE_API_KEY",
        url_variable="HUGGINGFACE_BASE_URL",
        default_base_url="https://router.huggingface.co/v1",
        adapter=OpenAICompatible,
    ),
    "ollama": ProviderSpec(
        label="Ollama",
        key_variable="",
        url_variable="OLLAMA_BASE_URL",
        default_base_url="http://localhost:11434/v1",
        adapter=OpenAICompatible,
        base_path="/v1",
    ),
}
LABELS: dict[str, str] = {**{name: spec.label for name, spec in REGISTRY.items()}, "demo": "Aleph"}


def configure(env: Mapping[str, str]) -> dict[str, Provider]:
    """The connected providers by name; "demo" is always among them. Empty values count as not set. Raises
    ConfigurationError for an address, key, version or speed that cannot work."""
    connected: dict[str, Provider] = {}
    for name, spec in REGISTRY.items():
        if all(env.get(variable, "").strip() for variable in spec.required):
            connected[name] = spec.adapter(
                name=name, base_url=_base_url(spec, env), api_key=_key(spec, env), **_version(spec, env)
            )
    ways = tuple((spec.label, spec.required[0]) for spec in REGISTRY.values())
    connected["demo"] = Demo(words_per_second=_demo_speed(env), ways_to_connect=ways)
    return connected


def missing(name: str) -> tuple[str, ...]:
    """The environment variables that would connect a provider; () for "demo", which needs none. Raises
    KeyError for a name that is no provider."""
    return () if name == "demo" else REGISTRY[name].required


def _key(spec: ProviderSpec, env: Mapping[str, str]) -> str:
    key = env.get(spec.key_variable, "").strip() if spec.key_variable else ""
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(f"{spec.key_variable} has characters that no key has")
    return key


def _base_url(spec: ProviderSpec, env: Mapping[str, str]) -> str:
    url = (env.get(spec.url_variable, "").strip() or spec.default_base_url).rstrip("/")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment or parts.username:
        raise ConfigurationError(
            f"{spec.url_variable} is not an http(s) address like {spec.default_base_url}"
        )
    if parts.scheme == "http" and spec.key_variable and not _in_the_house(host):
        raise ConfigurationError(
            f"{spec.url_variable} would send the key unencrypted over the internet: use https"
        )
    return url if parts.path else url + spec.base_path


def _version(spec: ProviderSpec, env: Mapping[str, str]) -> dict[str, str]:
    version = env.get(spec.version_variable, "").strip() if spec.version_variable else ""
    if version and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", version, re.ASCII):
        raise ConfigurationError(f"{spec.version_variable} is not a date like {anthropic.VERSION}")
    return {"version": version} if version else {}


def _in_the_house(host: str) -> bool:
    """A private address, or a name that only a private network resolves."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith(
            (".local", ".internal", ".localhost", ".svc", ".lan", ".test")
        )


def _demo_speed(env: Mapping[str, str]) -> float:
    value = env.get(DEMO_SPEED, "").strip() or "40"
    try:
        speed = float(value)
    except ValueError:
        speed = 0
    if not 0 < speed <= 1_000_000:
        raise ConfigurationError(f"{DEMO_SPEED} is not a number of words per second")
    return speed
