"""The chat that a call was made for gets a column of its own, so that the index on a person's calls can hold it. It holds
the model, the provider and the cached and reasoning tokens, too; ids and totals, which nothing needs to read there, make
room for them.
"""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

OUT = {
    "postgresql": "UPDATE usage_tokenusage SET session = left(metadata ->> 'session', 40), metadata = metadata - 'session'"
    " WHERE metadata ? 'session'",
    "sqlite": "UPDATE usage_tokenusage SET session = substr(json_extract(metadata, '$.session'), 1, 40),"
    " metadata = json_remove(metadata, '$.session') WHERE json_extract(metadata, '$.session') IS NOT NULL",
}
BACK = {
    "postgresql": "UPDATE usage_tokenusage SET metadata = metadata || jsonb_build_object('session', session)"
    " WHERE session <> ''",
    "sqlite": "UPDATE usage_tokenusage SET metadata = json_set(metadata, '$.session', session) WHERE session <> ''",
}


def move_out(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    take_time(apps, schema_editor)
    schema_editor.execute(OUT[schema_editor.connection.vendor], None)


def move_back(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    take_time(apps, schema_editor)
    schema_editor.execute(BACK[schema_editor.connection.vendor], None)


def take_time(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """An index on millions of calls takes longer than a page may."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("SET LOCAL statement_timeout = 0")
        schema_editor.execute("SET LOCAL maintenance_work_mem = '256MB'")


class Migration(migrations.Migration):
    dependencies = [("usage", "0012_price_corrections")]

    operations = [
        migrations.AddField(
            model_name="tokenusage",
            name="session",
            field=models.CharField(blank=True, max_length=40, verbose_name="session"),
        ),
        migrations.RemoveIndex(model_name="tokenusage", name="usage_by_user"),
        migrations.RunPython(move_out, move_back),
        migrations.AddIndex(
            model_name="tokenusage",
            index=models.Index(
                fields=["user", "-created_at"],
                include=[
                    "operation",
                    "provider",
                    "model",
                    "label",
                    "requested_model",
                    "session",
                    "input_tokens",
                    "output_tokens",
                    "cache_read_tokens",
                    "reasoning_tokens",
                    "total_cost_usd",
                    "charged_tokens",
                ],
                name="usage_by_user",
            ),
        ),
    ]
