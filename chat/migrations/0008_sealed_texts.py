from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

import aleph.sealed


def unbound(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """An encrypted title is longer than a title may be. SQLite knows no lengths."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE chat_session ALTER COLUMN title TYPE text")


class Migration(migrations.Migration):
    dependencies = [("chat", "0007_absent_routes")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(unbound, migrations.RunPython.noop)],
            state_operations=[
                migrations.AlterField(
                    model_name="message",
                    name="content",
                    field=aleph.sealed.SealedTextField(
                        blank=True, verbose_name="content", when="ENCRYPT_MESSAGES"
                    ),
                ),
                migrations.AlterField(
                    model_name="session",
                    name="title",
                    field=aleph.sealed.SealedTextField(
                        blank=True, max_length=120, verbose_name="title", when="ENCRYPT_MESSAGES"
                    ),
                ),
            ],
        )
    ]
