"""The threads of a web process: one for each request while it is worked on, and for database work of the event loop."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.db import connection

T = TypeVar("T")

THREADS = ThreadPoolExecutor(max_workers=1000, thread_name_prefix="request")
"""Threads come with the load and stay. So many, because an API call that waits for a whole reply holds one."""


async def in_thread(function: Callable[[], T]) -> T:
    """Run `function` beside the event loop and give the thread's database connection back at once."""

    def run() -> T:
        try:
            return function()
        finally:
            connection.close()

    return await sync_to_async(run, thread_sensitive=False, executor=THREADS)()
