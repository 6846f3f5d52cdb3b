"""The opening models that take images or think, where a shop has them already: nobody could say so before."""

from typing import Any

from django.db import migrations

TAKE_IMAGES = ["gpt-4o", "gpt-4o-mini", "claude-3.5-sonnet", "claude-3-haiku", "gemini-pro", "gemini-flash"]
THINK = ["gemini-pro", "gemini-flash"]


def say_what_they_can(apps: Any, schema_editor: Any) -> None:
    models = apps.get_model("chat", "ChatModel").objects.using(schema_editor.connection.alias)
    models.filter(slug__in=TAKE_IMAGES).update(takes_images=True)
    models.filter(slug__in=THINK).update(thinks=True)


class Migration(migrations.Migration):

    dependencies = [
        ('chat', '0004_catalogue'),
    ]

    operations = [
        migrations.RunPython(say_what_they_can, migrations.RunPython.noop),
    ]
