"""The gateways that money comes in by, and which of them this installation has connected. Knows no settings: whoever
starts the process hands over the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from billing.gateways.base import Gateway
from billing.gateways.midtrans import Midtrans
from billing.gateways.sandbox import Sandbox
from billing.gateways.stripe import Stripe
from billing.gateways.xendit import Invoices, Sessions

MIDTRANS = {
    False: ("https://app.sandbox.midtrans.com", "https://api.sandbox.midtrans.com"),
    True: ("https://app.midtrans.com", "https://api.midtrans.com"),
}
LABELS = {
    "midtrans": "Midtrans",
    "xendit": "Xendit",
    "xendit-invoice": "Xendit",
    "stripe": "Stripe",
    "sandbox": "Sandbox",
}


class ConfigurationError(ValueError):
    """An environment value that cannot work. Names the variable, never a key."""


@dataclass(frozen=True, slots=True)
class Connected:
    """Gateways by name, in the order in which they are offered. `all` has also those that only finish what was begun."""

    offered: dict[str, Gateway]
    all: dict[str, Gateway]


def configure(env: Mapping[str, str], *, sandbox_key: str = "", sandbox_url: str = "") -> Connected:
    """What the environment connects. The sandbox is there only with a key. Raises `ConfigurationError`."""
    offered: list[Gateway] = []
    others: list[Gateway] = []
    if server_key := _secret(env, "MIDTRANS_SERVER_KEY"):
        snap_url, api_url = MIDTRANS[_flag(env, "MIDTRANS_PRODUCTION")]
        offered.append(
            Midtrans(
                server_key=server_key,
                snap_url=_address(env, "MIDTRANS_SNAP_BASE_URL", snap_url),
                api_url=_address(env, "MIDTRANS_API_BASE_URL", api_url),
                merchant=_word(env, "MIDTRANS_MERCHANT_ID"),
                signing_keys=_secrets(env, "MIDTRANS_SIGNATURE_KEY"),
            )
        )
    if secret_key := _secret(env, "XENDIT_SECRET_KEY"):
        account = {
            "secret_key": secret_key,
            "base_url": _address(env, "XENDIT_BASE_URL", "https://api.xendit.co"),
            "merchant": _word(env, "XENDIT_BUSINESS_ID"),
        }
        tokens = _required(env, "XENDIT_CALLBACK_TOKEN", "XENDIT_SECRET_KEY")
        product = _word(env, "XENDIT_PRODUCT") or "sessions"
        if product not in ("sessions", "invoices"):
            raise ConfigurationError("XENDIT_PRODUCT is sessions or invoices")
        both: tuple[Gateway, Gateway] = (
            Sessions(**account, tokens=tokens),
            Invoices(**account, tokens=tokens),
        )
        chosen, other = both if product == "sessions" else both[::-1]
        offered.append(chosen)
        others.append(other)
    if secret_key := _secret(env, "STRIPE_SECRET_KEY"):
        offered.append(
            Stripe(
                secret_key=secret_key,
                webhook_secrets=_required(env, "STRIPE_WEBHOOK_SECRET", "STRIPE_SECRET_KEY"),
                base_url=_address(env, "STRIPE_BASE_URL", "https://api.stripe.com"),
            )
        )
    if sandbox_key:
        offered.append(Sandbox(key=sandbox_key, base_url=sandbox_url))
    return Connected(
        {gateway.name: gateway for gateway in offered},
        {gateway.name: gateway for gateway in (*offered, *others)},
    )


def _word(env: Mapping[str, str], name: str) -> str:
    return env.get(name, "").strip()


def _secret(env: Mapping[str, str], name: str) -> str:
    return _as_key(name, _word(env, name))


def _as_key(name: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ConfigurationError(f"{name} has characters that no key has")
    return value


def _secrets(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    """One secret, or two separated by a comma while they are being changed."""
    parts = (part.strip() for part in _word(env, name).split(","))
    return tuple(_as_key(name, part) for part in parts if part)


def _required(env: Mapping[str, str], name: str, beside: str) -> tuple[str, ...]:
    found = _secrets(env, name)
    if not found:
        raise ConfigurationError(f"{name} must be set beside {beside}: without it no notice can be believed")
    return found


def _flag(env: Mapping[str, str], name: str) -> bool:
    return _word(env, name).lower() in ("1", "true", "yes", "on")


def _address(env: Mapping[str, str], name: str, default: str) -> str:
    url = (_word(env, name) or default).rstrip("/")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment or parts.username:
        raise ConfigurationError(f"{name} is not an http(s) address like {default}")
    if parts.scheme == "http" and not _in_the_house(host):
        raise ConfigurationError(f"{name} would send the key unencrypted over the internet: use https")
    return url


def _in_the_house(host: str) -> bool:
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost", ".svc", ".test"))
