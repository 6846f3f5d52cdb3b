"""What is ours about connections to PostgreSQL."""

import psycopg
import pytest
from django.db import connection

from aleph.postgresql import PooledConnection
from aleph.prepared import planned_anew


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "postgresql", reason="a connection to PostgreSQL")
def test_a_connection_whose_server_process_has_gone_is_known_before_it_is_lent() -> None:
    parameters = connection.get_connection_params()
    del parameters["context"]
    with PooledConnection.connect(**parameters, autocommit=True) as lent:
        lent.execute("")
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [lent.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            lent.execute("")


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "postgresql", reason="a connection to PostgreSQL")
def test_what_is_planned_for_its_values_leaves_no_plan_for_others() -> None:
    def asked(mark: str) -> int:
        with connection.cursor() as cursor:
            for number in range(5):
                cursor.execute(f"SELECT %s::int AS {mark}", [number])
            cursor.execute(
                "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE %s", [f"%AS {mark}%"]
            )
            found: int = cursor.fetchone()[0]
            return found

    with planned_anew():
        assert asked("anew") == 0
    assert asked("kept") == 1
