"""Routes to a server that is looked for are absent until it is found."""

from typing import Any

from django.db import migrations, models


def mark_absent(apps: Any, schema_editor: Any) -> None:
    routes = apps.get_model("chat", "Route").objects.using(schema_editor.connection.alias)
    routes.filter(provider="ollama").update(is_absent=True)


class Migration(migrations.Migration):

    dependencies = [
        ('chat', '0006_attachments'),
    ]

    operations = [
        migrations.AddField(
            model_name='route',
            name='is_absent',
            field=models.BooleanField(default=False, editable=False, verbose_name='looked for and not there'),
        ),
        migrations.RunPython(mark_absent, migrations.RunPython.noop),
    ]
