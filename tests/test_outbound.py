"""What is sent to addresses that people name goes to the public internet or nowhere, and cannot hold us up."""

import datetime
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aleph import outbound
from tests.clock import in_time
from tests.simulator_receiver import Receiver


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def post(url: str) -> outbound.Answer:
    return outbound.post(url, body=b'{"a": 1}', headers={"Content-Type": "application/json"})


def refusal(url: str) -> str:
    with pytest.raises(outbound.NotDelivered) as refused:
        post(url)
    return refused.value.code


def test_what_is_sent_arrives_as_it_was(receiver: Receiver) -> None:
    answer = post(receiver.url("text-thanks?a=b"))
    request = receiver.requests[-1]
    assert (answer.status, answer.body) == (200, b"thanks")
    assert (request.path, request.body) == ("/text-thanks?a=b", b'{"a": 1}')
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "application/json"


# Where nothing goes


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
        "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:1::1", "2001:db8::1", "fec0::1", "::10.0.0.1",
    ],
)  # fmt: skip
def test_what_is_not_of_the_public_internet_is_none_of_it(address: str) -> None:
    assert not outbound.is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "203.0.114.7", "2606:4700:4700::1111", "2a00:1450::1"])
def test_public_addresses_are_told_apart(address: str) -> None:
    assert outbound.is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook", "ftp://example.com/", "file:///etc/passwd", "https://", "//example.com", "",
        "https://user:word@example.com/", "https://example.com/#part", "https://example.com:22/",
        "https://example.com:99999/", "https://exa mple.com/", "https://example.com/\r\nX: y", "https://[::1",
        "https://bücher.example/", "https://example.com/" + "x" * 500, "https://[fe80::1%25eth0]/",
        "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data", "https://[::ffff:10.0.0.1]/",
    ],
)  # fmt: skip
def test_addresses_that_lead_nowhere_are_refused_at_once(url: str) -> None:
    with pytest.raises(outbound.NotDelivered):
        outbound.check(url)
    assert refusal(url) == "address"


def test_in_production_this_machine_is_not_reached(receiver: Receiver, settings: Any) -> None:
    settings.DEVELOPMENT = False
    before = len(receiver.requests)
    for host in ("127.0.0.1", "localhost", "0x7f000001", "2130706433"):
        assert refusal(receiver.url("ok", host)) == "address"
        assert refusal(receiver.url("ok", host).replace("http:", "https:")) == "address"
    assert len(receiver.requests) == before


def answers(monkeypatch: pytest.MonkeyPatch, *rounds: list[str]) -> list[str]:
    """A name server that answers otherwise each time; the list of what it was asked."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *args: Any, **more: Any) -> list[Any]:
        if host[0].isdigit():
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        asked.append(host)
        found = rounds[min(len(asked), len(rounds)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("found", [["127.0.0.1"], ["10.0.0.1"], ["1.1.1.1", "169.254.169.254"]])
def test_a_name_of_a_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, found: list[str]
) -> None:
    answers(monkeypatch, found)
    before = len(receiver.requests)
    assert refusal(f"https://inside.example:{receiver.port}/ok") == "address"
    assert len(receiver.requests) == before


def test_a_name_that_changes_its_mind_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    """Public for whoever looks, this machine for whoever connects: it is connected to what was looked at."""
    monkeypatch.delenv("ALEPH_FORBID_NETWORK")
    connected: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    asked = answers(monkeypatch, ["1.1.1.1"], ["127.0.0.1"])
    assert refusal(f"https://rebinding.example:{receiver.port}/ok") == "connection"
    assert {address[0] for address in connected} == {"1.1.1.1"}
    assert asked == ["rebinding.example"]


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    for status in (301, 302, 307, 308):
        assert post(receiver.url(str(status))).status == status
    assert receiver.requests[-1].path == "/308"


# Who does not answer as one should


def test_of_a_long_answer_only_the_beginning_is_read(receiver: Receiver) -> None:
    began = time.monotonic()
    assert post(receiver.url("huge")).body == b"y" * outbound.LONGEST
    in_time(time.monotonic() - began, 5)


@pytest.mark.parametrize("script", ["slow", "drip"])
def test_nobody_keeps_us_waiting(receiver: Receiver, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(outbound, "READ_S", 0.5)
    monkeypatch.setattr(outbound, "TOTAL_S", 1.0)
    began = time.monotonic()
    assert refusal(receiver.url(script)) == "timeout"
    in_time(time.monotonic() - began, 5)


def test_what_breaks_is_named(receiver: Receiver) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert refusal(f"http://127.0.0.1:{unused.getsockname()[1]}/") == "connection"
    assert refusal(receiver.url("cut")) == "connection"
    assert refusal(receiver.url("ok").replace("http:", "https:")) == "tls"
    assert refusal("https://no-such-name.invalid/") == "name"


def test_a_receiver_may_ask_for_time(receiver: Receiver) -> None:
    assert post(receiver.url("busy-120")).retry_after_s == 120
    assert post(receiver.url("busy-soon")).retry_after_s is None


def test_a_certificate_must_be_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver(tls=certified(tmp_path)) as receiver:
        assert refusal(receiver.url("ok", "localhost")) == "tls", "nobody trusts it"
        monkeypatch.setattr(outbound, "CA_FILE", str(tmp_path / "certificate.pem"))
        assert post(receiver.url("ok", "localhost")).status == 204
        assert refusal(receiver.url("ok")) == "tls", "it is not that of this address"


def certified(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for ``localhost`` that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(form))
    (folder / "key.pem").write_bytes(
        key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
