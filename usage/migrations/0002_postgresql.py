"""An index on time for the reports that look at everybody's calls.

Rows are stored in the order of their time, so a block range index of 48 kB finds a month among ten million of them. Only
PostgreSQL has such indexes; a btree that every reply would have to keep up is not worth it on SQLite.
"""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps


def create(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("CREATE INDEX usage_by_time ON usage_tokenusage USING brin (created_at)")


def drop(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP INDEX usage_by_time")


class Migration(migrations.Migration):
    dependencies = [("usage", "0001_initial")]

    operations = [migrations.RunPython(create, drop)]
