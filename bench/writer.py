"""Writes many replies at once, as a worker publishes them, and without one: for the web process measured by itself.

    python -m bench.writer --streams 1200 [--chunks 100] [--interval-ms 50]

Opens the replies and prints a JSON line for each: its session, itself, its owner's key. After a line on standard input
it writes; then it closes the rows and tells the viewers. Run with the product's own environment.
"""

import argparse
import json
import sys
import time
from datetime import timedelta

import django

django.setup()

from django.utils import timezone  # noqa: E402

from aleph import ids  # noqa: E402
from aleph.accounts.models import ApiKey  # noqa: E402
from bench.people import bench_model, person, sessions  # noqa: E402
from chat import stream  # noqa: E402
from chat.models import Message  # noqa: E402

TICK_S = 0.005
OWNERS = 100


def opened(number: int) -> list[Message]:
    """Replies that look as if a worker were writing them."""
    model = bench_model("writer")
    owners = [person(place) for place in range(OWNERS)]
    keys = [ApiKey.issue(user=owner, name="bench") for owner in owners]
    said, replies = [], []
    for place, session in enumerate(sessions(model, owners, number)):
        message_id, reply_id = sorted([ids.new("msg"), ids.new("msg")])
        said.append(
            Message(id=message_id, session=session, user_id=session.user_id, role="user", content="hi")
        )
        replies.append(
            Message(
                id=reply_id,
                session=session,
                user_id=session.user_id,
                parent=said[-1],
                role="assistant",
                turn=reply_id,
                state="streaming",
                epoch=1,
                attempts=1,
                model=model,
                lease_until=timezone.now() + timedelta(hours=1),
                started_at=timezone.now(),
            )
        )
        print(json.dumps({"session": session.pk, "message": reply_id, "key": keys[place % OWNERS]}))
    Message.objects.bulk_create(said + replies, batch_size=500)
    return replies


def write(replies: list[Message], chunks: int, interval_s: float) -> None:
    """Each reply gets a chunk every `interval_s`, spread evenly over all of them."""
    publisher = stream.publisher()
    began = time.monotonic()
    done, in_all = 0, chunks * len(replies)
    while done < in_all:
        due = min(in_all, int((time.monotonic() - began) / interval_s * len(replies)))
        for place in range(done, due):
            reply = replies[place % len(replies)]
            text = f"w{int(time.monotonic() * 1e6)} "
            publisher.append(
                reply_id=reply.pk,
                user_id=reply.user_id,
                epoch=1,
                offset=len(reply.content),
                byte_offset=len(reply.content),
                text=text,
            )
            reply.content += text
        done = due
        time.sleep(TICK_S)
    publisher.flush()


def close(replies: list[Message]) -> None:
    """Ends them in the database first, as the product does, and then for whoever watches."""
    for reply in replies:
        reply.state, reply.epoch, reply.lease_until = "complete", 2, None
    Message.objects.bulk_update(replies, ["content", "state", "epoch", "lease_until"], batch_size=200)
    for reply in replies:
        stream.end(reply.pk, 1, user_id=reply.user_id)


def main() -> None:
    arguments = argparse.ArgumentParser(description="Many replies at once, without a worker.")
    arguments.add_argument("--streams", type=int, default=1200)
    arguments.add_argument("--chunks", type=int, default=100)
    arguments.add_argument("--interval-ms", type=float, default=50)
    given = arguments.parse_args()
    replies = opened(given.streams)
    print("ready", flush=True)
    sys.stdin.readline()
    write(replies, given.chunks, given.interval_ms / 1000)
    close(replies)


if __name__ == "__main__":
    main()
