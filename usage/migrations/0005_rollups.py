from datetime import UTC, datetime

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps


def index_time(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """The rollups read an hour of calls at a time. PostgreSQL has an index by block ranges for that; SQLite has none,
    and appends at the end of a btree."""
    if schema_editor.connection.vendor == "sqlite":
        schema_editor.execute("CREATE INDEX usage_by_time ON usage_tokenusage (created_at)")


def forget_time(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "sqlite":
        schema_editor.execute("DROP INDEX usage_by_time")


def begin(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    beginning = datetime(2020, 1, 1, tzinfo=UTC)
    apps.get_model("usage", "RollupMark").objects.create(pk=1, hours_to=beginning, days_to=beginning)


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0002_email_in_any_case'),
        ('usage', '0004_prices_by_size_and_time'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='RollupDue',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('hour', models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name='RollupMark',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('hours_to', models.DateTimeField()),
                ('days_to', models.DateTimeField()),
                ('rows_from', models.DateTimeField(null=True)),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('pk', 1)), name='rollup_mark_is_one')],
            },
        ),
        migrations.CreateModel(
            name='UsageDay',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('calls', models.PositiveBigIntegerField()),
                ('failed', models.PositiveBigIntegerField()),
                ('interrupted', models.PositiveBigIntegerField()),
                ('estimated', models.PositiveBigIntegerField()),
                ('flagged', models.PositiveBigIntegerField()),
                ('unpriced', models.PositiveBigIntegerField()),
                ('cache_read_tokens', models.PositiveBigIntegerField()),
                ('reasoning_tokens', models.PositiveBigIntegerField()),
                ('input_tokens', models.PositiveBigIntegerField()),
                ('output_tokens', models.PositiveBigIntegerField()),
                ('total_tokens', models.PositiveBigIntegerField()),
                ('total_cost_usd', models.DecimalField(decimal_places=12, max_digits=26)),
                ('day', models.DateField()),
                ('user', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'indexes': [models.Index(fields=['day'], name='usageday_by_day')],
            },
        ),
        migrations.CreateModel(
            name='UsageHour',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('calls', models.PositiveBigIntegerField()),
                ('failed', models.PositiveBigIntegerField()),
                ('interrupted', models.PositiveBigIntegerField()),
                ('estimated', models.PositiveBigIntegerField()),
                ('flagged', models.PositiveBigIntegerField()),
                ('unpriced', models.PositiveBigIntegerField()),
                ('cache_read_tokens', models.PositiveBigIntegerField()),
                ('reasoning_tokens', models.PositiveBigIntegerField()),
                ('input_tokens', models.PositiveBigIntegerField()),
                ('output_tokens', models.PositiveBigIntegerField()),
                ('total_tokens', models.PositiveBigIntegerField()),
                ('total_cost_usd', models.DecimalField(decimal_places=12, max_digits=26)),
                ('hour', models.DateTimeField()),
                ('operation', models.CharField(max_length=40)),
                ('provider', models.CharField(max_length=40)),
                ('model', models.CharField(max_length=120)),
                ('label', models.CharField(blank=True, max_length=80)),
                ('first_token_ms', models.PositiveBigIntegerField()),
                ('first_token_calls', models.PositiveBigIntegerField()),
                ('latency_ms', models.PositiveBigIntegerField()),
                ('latency_calls', models.PositiveBigIntegerField()),
                ('company', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='accounts.company')),
            ],
            options={
                'indexes': [models.Index(fields=['hour'], name='usagehour_by_hour'), models.Index(condition=models.Q(('company__isnull', False)), fields=['company', 'hour'], name='usagehour_by_company')],
            },
        ),
        migrations.RunPython(begin, migrations.RunPython.noop),
        migrations.RunPython(index_time, forget_time),
    ]
