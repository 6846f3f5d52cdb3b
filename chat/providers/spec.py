"""What connects a provider: the variables of the environment, and the adapter that is made of them. Each provider's own
module has its `SPEC`; `chat.providers` knows them all. Only they call this."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from chat.providers.base import Provider

OFF = "off"
"""As an address: do not even look for it."""


class ConfigurationError(ValueError):
    """An environment value that cannot work. Names the variable, never a key."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Something else that may be said about a provider: the variable, the adapter's `keyword`, and how the whole value
    looks. A value that is not set is not passed on."""

    variable: str
    keyword: str
    pattern: str
    example: str


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """One provider, and the `adapter` that speaks its protocol.

    `key_aliases`: other names that his key goes by. `base_url` is where he is reached if `url_variable` does not say;
    where `is_own`, the provider is a server of the installation's own, connected by its address, with or without a key,
    and `base_url` an example. `is_found`: he is looked for at `base_url` even if nobody named him (`chat.local_models`).
    `base_path` is appended to an address that has no path.
    """

    name: str
    label: str
    key_variable: str
    url_variable: str
    base_url: str
    adapter: Callable[..., Provider]
    key_aliases: tuple[str, ...] = ()
    is_own: bool = False
    is_found: bool = False
    base_path: str = ""
    settings: tuple[Setting, ...] = ()

    @property
    def required(self) -> tuple[str, ...]:
        return (self.url_variable if self.is_own else self.key_variable,)

    def connect(self, env: Mapping[str, str]) -> Provider | None:
        """The adapter, or None where the environment does not connect it. Empty values count as not set. Raises
        `ConfigurationError`."""
        key, url = self._key(env), env.get(self.url_variable, "").strip()
        if url.lower() == OFF or not ((url or self.is_found) if self.is_own else key):
            return None
        return self.adapter(
            name=self.name,
            base_url=self._base_url(url or self.base_url, with_key=bool(key)),
            api_key=key,
            **self._settings(env),
        )

    def _key(self, env: Mapping[str, str]) -> str:
        for variable in filter(None, (self.key_variable, *self.key_aliases)):
            key = env.get(variable, "").strip()
            if not (key.isascii() and key.isprintable()) or " " in key:
                raise ConfigurationError(f"{variable} has characters that no key has")
            if key:
                return key
        return ""

    def _base_url(self, url: str, *, with_key: bool) -> str:
        url = url.rstrip("/")
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if (
            not host
            or parts.scheme not in ("http", "https")
            or parts.query
            or parts.fragment
            or parts.username
        ):
            raise ConfigurationError(f"{self.url_variable} is not an http(s) address like {self.base_url}")
        if parts.scheme == "http" and with_key and not _in_the_house(host):
            raise ConfigurationError(
                f"{self.url_variable} would send the key unencrypted over the internet: use https"
            )
        return url if parts.path else url + self.base_path

    def _settings(self, env: Mapping[str, str]) -> dict[str, str]:
        given = {}
        for setting in self.settings:
            value = env.get(setting.variable, "").strip()
            if value and not re.fullmatch(setting.pattern, value, re.ASCII):
                raise ConfigurationError(f"{setting.variable} is not something like {setting.example}")
            if value:
                given[setting.keyword] = value
        return given


def _in_the_house(host: str) -> bool:
    """A private address, or a name that only a private network resolves."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith(
            (".local", ".internal", ".localhost", ".svc", ".lan", ".test")
        )
