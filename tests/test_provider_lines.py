"""The line to a provider: how long it is waited for, and that hanging up works at every moment, over TLS
as well."""

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chat.providers.base import Call, Clocks
from chat.providers.openai_compatible import OpenAICompatible
from tests.clock import in_time
from tests.listening import QUESTION, QUICK, ask, ask_and_cancel, prompt
from tests.simulator import Simulator

KEY = "sk-alice-9f8e7d6c5b4a39281706"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture
def openai(simulator: Simulator) -> OpenAICompatible:
    return OpenAICompatible(name="openai", base_url=simulator.base_url, api_key=KEY)


# The four clocks


@pytest.mark.parametrize("model", ["sim-timeout", "sim-keepalive-forever", "sim-delay-3000"])
def test_the_first_event_is_waited_for_only_so_long(openai: OpenAICompatible, model: str) -> None:
    heard = ask(openai, prompt(model), clocks=Clocks(first_byte_s=0.4, idle_s=9, total_s=9))
    assert heard.kind == "timeout"
    assert heard.took_s > 0.3
    in_time(heard.took_s, 1)


@pytest.mark.parametrize("model", ["sim-stall-5", "sim-stall-5-close"])
def test_a_stalled_answer_is_given_up(simulator: Simulator, openai: OpenAICompatible, model: str) -> None:
    aborted = simulator.aborted
    heard = ask(openai, prompt(model), clocks=Clocks(first_byte_s=9, idle_s=0.4, total_s=9))
    assert heard.kind == "timeout"
    assert heard.text == "word1 word2 word3 word4 word5 "
    in_time(heard.took_s, 1)
    assert simulator.wait_for_aborted(aborted + 1, timeout_s=1)


def test_an_answer_that_drips_is_ended_by_the_total_clock(openai: OpenAICompatible) -> None:
    heard = ask(openai, prompt("sim-slow-100x50ms"), clocks=Clocks(first_byte_s=9, idle_s=9, total_s=0.5))
    assert heard.kind == "timeout"
    in_time(heard.took_s, 1)


def test_a_slow_beginning_does_not_run_into_the_idle_clock(openai: OpenAICompatible) -> None:
    clocks = Clocks(first_byte_s=9, idle_s=0.2, total_s=9)
    assert ask(openai, prompt("sim-delay-500"), clocks=clocks).finish.reason == "stop"


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port whose queue of connections is full: connecting to it hangs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            waiting.append(filler)
        time.sleep(0.05)
        yield listener.getsockname()[1]
        for filler in waiting:
            filler.close()


def test_a_connection_is_waited_for_only_so_long(deaf_port: int) -> None:
    deaf = OpenAICompatible(name="openai", base_url=f"http://127.0.0.1:{deaf_port}/v1")
    heard = ask(deaf, prompt("sim-echo"), clocks=Clocks(connect_s=0.3))
    assert heard.kind == "unreachable"
    in_time(heard.took_s, 1)


# Hanging up


@pytest.mark.parametrize(
    "model", ["sim-timeout", "sim-stall-5", "sim-stall-5-close", "sim-slow-500x20ms", "sim-keepalive-forever"]
)
def test_cancel_closes_the_connection_within_a_second(
    simulator: Simulator, openai: OpenAICompatible, model: str
) -> None:
    aborted = simulator.aborted
    heard, took_s = ask_and_cancel(openai, prompt(model), after_s=0.2)
    assert heard.cancelled
    in_time(took_s, 0.5)
    assert simulator.wait_for_aborted(aborted + 1, timeout_s=0.5)


def test_cancel_ends_the_wait_for_a_connection(deaf_port: int) -> None:
    deaf = OpenAICompatible(name="openai", base_url=f"http://127.0.0.1:{deaf_port}/v1")
    heard, took_s = ask_and_cancel(deaf, prompt("sim-echo"), after_s=0.2)
    assert heard.cancelled
    in_time(took_s, 0.5)


def test_a_call_cancelled_before_it_began_sends_nothing(
    simulator: Simulator, openai: OpenAICompatible
) -> None:
    call, before = Call(), len(simulator.requests)
    call.cancel()
    assert ask(openai, prompt("sim-echo"), call=call).cancelled
    assert len(simulator.requests) == before


def test_a_late_cancel_does_not_reach_the_next_call_on_the_same_connection(
    simulator: Simulator, openai: OpenAICompatible
) -> None:
    alices = Call()
    stream = openai.stream(prompt("sim-words-2-onewrite"), call=alices, clocks=QUICK)
    next(stream)  # everything was read, the connection is free again, but Alice's stream is still open
    before = simulator.connections
    threading.Timer(0.2, alices.cancel).start()
    bobs = ask(openai, prompt("sim-slow-20x20ms"))
    assert simulator.connections == before
    assert len(bobs.text.split()) == 20
    assert bobs.finish.reason == "stop"
    stream.close()


def test_a_caller_who_walks_away_closes_the_connection(
    simulator: Simulator, openai: OpenAICompatible
) -> None:
    aborted = simulator.aborted
    stream = openai.stream(prompt("sim-slow-500x20ms"), call=Call(), clocks=QUICK)
    next(stream)
    stream.close()
    assert simulator.wait_for_aborted(aborted + 1, timeout_s=1)


def test_the_providers_id_is_known_before_the_answer_ends(openai: OpenAICompatible) -> None:
    call = Call()
    stream = openai.stream(prompt("sim-slow-500x20ms"), call=call, clocks=QUICK)
    next(stream)
    assert call.request_id.startswith("req_")
    stream.close()


# Over TLS, as the real providers are


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "simulator")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "simulator.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture(scope="module")
def tls_simulator(certificate: Path) -> Iterator[Simulator]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Simulator(tls=context) as running:
        yield running


def _over_tls(base_url: str, certificate: Path) -> OpenAICompatible:
    provider = OpenAICompatible(name="openai", base_url=base_url, api_key=KEY)
    provider._wire._session.verify = str(certificate)
    return provider


def test_an_answer_arrives_over_tls_and_its_connection_is_kept(
    tls_simulator: Simulator, certificate: Path
) -> None:
    provider = _over_tls(tls_simulator.base_url, certificate)
    before = tls_simulator.connections
    for _ in range(2):
        assert ask(provider, prompt("sim-echo")).text == QUESTION
    assert ask(provider, prompt("sim-echo-close")).text == QUESTION
    assert tls_simulator.connections == before + 1


@pytest.mark.parametrize("model", ["sim-timeout", "sim-stall-5", "sim-stall-5-close"])
def test_cancel_works_over_tls(tls_simulator: Simulator, certificate: Path, model: str) -> None:
    aborted = tls_simulator.aborted
    provider = _over_tls(tls_simulator.base_url, certificate)
    heard, took_s = ask_and_cancel(provider, prompt(model), after_s=0.3)
    assert heard.cancelled
    in_time(took_s, 0.5)
    assert tls_simulator.wait_for_aborted(aborted + 1, timeout_s=0.5)


def test_cancel_ends_a_handshake_that_is_not_answered(certificate: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        provider = _over_tls(f"https://127.0.0.1:{mute.getsockname()[1]}/v1", certificate)
        heard, took_s = ask_and_cancel(provider, prompt("sim-echo"), after_s=0.3)
    assert heard.cancelled
    in_time(took_s, 0.5)


def test_a_stranger_with_a_wrong_certificate_gets_no_key(tls_simulator: Simulator) -> None:
    before = len(tls_simulator.requests)
    provider = OpenAICompatible(name="openai", base_url=tls_simulator.base_url, api_key=KEY)
    heard = ask(provider, prompt("sim-echo"))
    assert heard.problem is not None
    assert (heard.kind, heard.problem.retryable) == ("unreachable", False)
    assert len(tls_simulator.requests) == before
