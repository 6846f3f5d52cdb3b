"""Connections to PostgreSQL out of the pool."""

import select
from typing import Any

import psycopg
from psycopg import _queries

# Of a statement with more values psycopg works out anew where they go, each time it is sent: it takes such statements for
# ones that never come again. A turn's messages and its usage row have more, and always the same words.
_queries.MAX_CACHED_STATEMENT_PARAMS = 200
_queries.MAX_CACHED_STATEMENT_LENGTH = 16_384

_TROUBLE = select.POLLIN | select.POLLERR | select.POLLHUP


class PooledConnection(psycopg.Connection[Any]):
    """A connection whose health is seen at its socket.

    Before it lends a connection the pool runs an empty statement on it, which would be a third of all that we ask the
    server. A server that went away has closed the socket, or left an error in it; only then the question is asked.
    """

    def execute(self, query: Any, *args: Any, **options: Any) -> psycopg.Cursor[Any]:
        return self.cursor() if query == "" and self._is_quiet() else super().execute(query, *args, **options)

    def _is_quiet(self) -> bool:
        if self.closed:
            return False
        socket = select.poll()
        socket.register(self.fileno(), _TROUBLE)
        return not socket.poll(0)
