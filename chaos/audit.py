"""At the end, when all is quiet: what the public API tells each person, beside what is stored."""

from typing import Any

from chaos.checker import snapshot
from chaos.client import Client
from chaos.memory import Memory

CHATS = 12


def audit(url: str, database_url: str, people: list[dict[str, Any]], memory: Memory) -> int:
    """Complain of every difference; the number of messages that were compared."""
    with snapshot(database_url) as ask:
        messages = {
            row[0]: row[1:]
            for row in ask("SELECT id, user_id, content, tokens_used, state FROM chat_message")
        }
        balances = {
            (user, name): (balance, held)
            for user, name, balance, held in ask(
                "SELECT user_id, name, balance, held FROM billing_account WHERE user_id IS NOT NULL"
            )
        }
    compared = 0
    for person in people:
        client, user = Client(url, person, memory), person["id"]
        told = _data(client, "/tokens/balance")
        balance, held = balances[user, "tokens"]
        wallet = balances[user, "wallet"][0]
        stored = {"tokens": balance - held, "balance": balance, "held": held, "walletBalance": wallet}
        if told | stored != told:
            memory.complain(
                "I1", f"person {user} is told {told}, stored are {balance}, {held} and Rp {wallet}"
            )
        for session in _data(client, f"/sessions?limit={CHATS}")["sessions"]:
            for message in _data(client, f"/sessions/{session['id']}?limit=100")["messages"]:
                shown = (user, message["content"], message["tokensUsed"], message.get("state"))
                if messages.get(message["id"]) != shown:
                    memory.complain(
                        "I13", f"{message['id']} is told as {shown}, stored {messages.get(message['id'])}"
                    )
                compared += 1
    return compared


def _data(client: Client, path: str) -> Any:
    response = client.program("GET", path)
    if response is None or response.status_code != 200:
        raise RuntimeError(f"{path} was not answered in a quiet product")
    return response.json()["data"]
