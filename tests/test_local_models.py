"""A local Ollama: found by itself, its models offered free, withdrawn while it is gone, never deleted."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from chat import catalogue, local_models
from chat.models import ChatModel, Route
from tests import people
from tests.simulator_ollama import OllamaSimulator

pytestmark = pytest.mark.usefixtures("db")

CHATS = {"capabilities": ["completion", "tools"], "model_info": {"llama.context_length": 131072}}
SEES = {"capabilities": ["completion", "vision"], "model_info": {"gemma3.context_length": 4096}}
EMBEDS = {"capabilities": ["embedding"], "model_info": {"bert.context_length": 512}}


@pytest.fixture
def server(settings: Any) -> Iterator[OllamaSimulator]:
    with OllamaSimulator() as running:
        point_at(running.base_url, settings)
        yield running
    catalogue.connected.cache_clear()


def point_at(address: str, settings: Any) -> None:
    settings.PROVIDER_ENV = {**settings.PROVIDER_ENV, "OLLAMA_BASE_URL": address}
    catalogue.connected.cache_clear()


def nobody_listens() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_what_a_local_server_has_is_offered_free(server: OllamaSimulator) -> None:
    server.installed |= {"llama3.2:latest": CHATS, "gemma3:4b": SEES, "nomic-embed-text:latest": EMBEDS}
    assert local_models.look() == 2

    llama, gemma = catalogue.find("ollama-llama3.2"), catalogue.find("ollama-gemma3:4b")
    assert llama.is_available
    assert (llama.model.name, llama.model.is_free, llama.model.takes_images) == ("llama3.2", True, False)
    assert (gemma.model.takes_images, gemma.model.context_tokens) == (True, 4096)
    assert llama.model.context_tokens == 8192, "no more than it is loaded with"
    assert not ChatModel.objects.filter(slug__contains="embed").exists()


def test_looking_again_changes_nothing(server: OllamaSimulator) -> None:
    server.installed["llama3.2:latest"] = CHATS
    local_models.look()
    ChatModel.objects.filter(slug="ollama-llama3.2").update(name="Our llama", is_offered=False)
    local_models.look()
    model = ChatModel.objects.get(slug="ollama-llama3.2")
    assert (model.name, model.is_offered, model.routes.count()) == ("Our llama", False, 1)


def test_a_server_that_goes_away_takes_its_models_with_it_until_it_is_back(
    server: OllamaSimulator, settings: Any
) -> None:
    server.installed["llama3.2:latest"] = CHATS
    local_models.look()
    point_at(nobody_listens(), settings)

    assert local_models.look() == 0
    gone = catalogue.find("ollama-llama3.2")
    assert not gone.is_available
    assert "Ollama" in str(gone.reason)
    assert gone in catalogue.offers(), "shown, and not to be had"

    point_at(server.base_url, settings)
    local_models.look()
    assert catalogue.find("ollama-llama3.2").is_available


def test_a_model_that_was_removed_is_not_to_be_had(server: OllamaSimulator) -> None:
    server.installed |= {"llama3.2:latest": CHATS, "gemma3:4b": SEES}
    local_models.look()
    del server.installed["gemma3:4b"]
    local_models.look()
    assert catalogue.find("ollama-llama3.2").is_available
    assert not catalogue.find("ollama-gemma3:4b").is_available


def test_a_route_that_staff_have_laid_is_used_and_no_second_model_made(server: OllamaSimulator) -> None:
    route = Route.objects.get(provider="ollama", upstream_model="llama3.3")
    assert route.is_absent
    assert not catalogue.find("llama-3.3-70b").is_available
    server.installed["llama3.3:latest"] = CHATS
    local_models.look()
    assert catalogue.find("llama-3.3-70b").is_available
    assert not ChatModel.objects.filter(slug__startswith="ollama-").exists()


def test_two_models_of_one_upstream_name_are_both_found(server: OllamaSimulator) -> None:
    other = ChatModel.objects.get(slug="aleph-demo")
    Route.objects.create(model=other, provider="ollama", upstream_model="llama3.3:latest", is_absent=True)
    server.installed["llama3.3:latest"] = CHATS
    local_models.look()
    assert not Route.objects.filter(provider="ollama", is_absent=True).exists()


def test_names_that_no_id_can_hold_stay_apart(server: OllamaSimulator) -> None:
    names = ["hf.co/Bartowski/Llama:Q4", "hf.co-bartowski-llama:q4", "x" * 90 + ":latest"]
    server.installed |= dict.fromkeys(names, CHATS)
    local_models.look()
    made = ChatModel.objects.filter(slug__startswith="ollama-")
    assert {model.routes.get().upstream_model for model in made} == set(names)
    for model in made:
        model.full_clean()


def test_what_a_server_passes_on_to_a_cloud_is_not_offered(server: OllamaSimulator) -> None:
    server.installed["gpt-oss:120b-cloud"] = CHATS | {"remote_host": "https://ollama.com:443"}
    assert local_models.look() == 0
    assert not ChatModel.objects.filter(slug__startswith="ollama-").exists()


def test_nobody_is_asked_where_it_is_switched_off(server: OllamaSimulator, settings: Any) -> None:
    point_at("off", settings)
    assert local_models.look() == 0
    assert server.looks == 0


def test_a_page_never_waits_for_the_server(server: OllamaSimulator) -> None:
    server.installed["llama3.2:latest"] = CHATS
    local_models.look()
    looks = server.looks
    client = Client()
    client.force_login(people.alice())
    assert "llama3.2" in client.get("/").content.decode()
    assert server.looks == looks


def test_staff_can_have_it_looked_for_now(server: OllamaSimulator) -> None:
    server.installed["llama3.2:latest"] = CHATS
    client = Client(headers={"accept-language": "en"})
    client.force_login(people.dewi())
    page = client.get(reverse("admin:chat_chatmodel_changelist")).content.decode()
    assert "Look for local models" in page
    answer = client.post(reverse("admin:chat_look_for_local_models"), follow=True).content.decode()
    assert "1 local model was found." in answer
    assert catalogue.find("ollama-llama3.2").is_available
    assert client.get(reverse("admin:chat_look_for_local_models")).status_code == 405


def test_nobody_else_can(server: OllamaSimulator) -> None:
    client = Client()
    client.force_login(people.alice())
    assert client.post(reverse("admin:chat_look_for_local_models")).status_code == 302
    assert server.looks == 0
