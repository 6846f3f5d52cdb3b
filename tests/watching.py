"""Watching replies in this process, as the page and a program do, in stories that run on an event loop of their own."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest
from django.test import Client, RequestFactory

from chat import live, stream
from chat.models import Message
from tests.product import session_cookie
from tests.screen import Screen

MARKDOWN = """# Perjalanan ke Yogyakarta 🌋

Satu *hari* di **Prambanan**, lalu `Malioboro`.

| Hari | Tempat |
| ---- | ------ |
| 1 | Prambanan |
| 2 | Borobudur |

```python
def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
```

- satu
- dua, dan <script>alert(1)</script>
- tiga

Rumusnya $a^2 + b^2 = c^2$, selesai.
"""


def told_story(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))


def request_of(reply: Message) -> HttpRequest:
    request = RequestFactory().get(f"/chat/replies/{reply.pk}/stream")
    request.user = reply.user
    return request


async def seen_by_a_page(
    reply: Message, screen: Screen, *, enough: Callable[[Screen], bool] = lambda _: False
) -> None:
    events = cast(AsyncGenerator[str, None], live.page_events(reply, request=request_of(reply)))
    async with aclosing(events):
        async for sent in events:
            screen.take(sent)
            if enough(screen):
                break


def page_of(reply: Message) -> str:
    client = Client()
    client.cookies["sessionid"] = session_cookie(reply.user)
    client.cookies["django_language"] = "en"
    return client.get(f"/chat/{reply.session_id}").content.decode()


def forget_everything() -> None:
    """Redis as after FLUSHALL, as far as this test session is concerned."""
    for key in stream.client().scan_iter(f"{settings.REDIS_PREFIX}*", count=1000):
        stream.client().delete(key)
