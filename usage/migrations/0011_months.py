import datetime
import django.db.models.deletion
from django.conf import settings
import usage.models
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps


def take_time(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """An index on millions of calls takes longer than a page may."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("SET LOCAL statement_timeout = 0")


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0002_email_in_any_case'),
        ('usage', '0010_partitions'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunPython(take_time, migrations.RunPython.noop),
        migrations.CreateModel(
            name='UsageMonth',
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
                ('charged_tokens', models.PositiveBigIntegerField(default=0)),
                ('charged_idr_thousandths', models.PositiveBigIntegerField(default=0)),
                ('total_cost_usd', models.DecimalField(decimal_places=12, max_digits=26)),
                ('month', models.DateField()),
                ('operation', models.CharField(max_length=40)),
                ('provider', models.CharField(max_length=40)),
                ('model', models.CharField(max_length=120)),
            ],
        ),
        migrations.AddField(
            model_name='rollupmark',
            name='months_to',
            field=models.DateTimeField(default=datetime.datetime(2020, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)),
        ),
        # To alter the field would check its foreign key once more for every row.
        migrations.SeparateDatabaseAndState(
            [migrations.RunSQL("DROP INDEX IF EXISTS usage_tokenusage_company_id_057b50dd", migrations.RunSQL.noop)],
            [
                migrations.AlterField(
                    model_name='tokenusage',
                    name='company',
                    field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='accounts.company', verbose_name='company'),
                ),
            ],
        ),
        migrations.AddIndex(
            model_name='tokenusage',
            index=models.Index(condition=models.Q(('company__isnull', False)), fields=['company', '-created_at'], name='usage_by_company'),
        ),
        migrations.AddIndex(
            model_name='tokenusage',
            index=models.Index(condition=models.Q(('flagged', True)), fields=['-id'], name='usage_flagged'),
        ),
        migrations.AddIndex(
            model_name='tokenusage',
            index=models.Index(condition=models.Q(('status', 'complete'), _negated=True), fields=['status', '-id'], name='usage_not_complete'),
        ),
        migrations.AddIndex(
            model_name='tokenusage',
            index=models.Index(condition=models.Q(('source', 'reported'), _negated=True), fields=['source', '-id'], name='usage_not_reported'),
        ),
        migrations.RemoveIndex(
            model_name='tokenusage',
            name='usage_by_user',
        ),
        migrations.AddIndex(
            model_name='tokenusage',
            index=models.Index(fields=['user', '-created_at'], include=['id', 'operation', 'label', 'requested_model', 'input_tokens', 'output_tokens', 'total_tokens', 'total_cost_usd', 'charged_tokens'], name='usage_by_user'),
        ),
        migrations.RunSQL("DROP INDEX IF EXISTS usage_by_time", migrations.RunSQL.noop),
        migrations.AddIndex(
            model_name='tokenusage',
            index=usage.models.TimeIndex(fields=['created_at'], name='usage_by_time'),
        ),
        migrations.AddIndex(
            model_name='usageday',
            index=models.Index(fields=['user', 'day'], name='usageday_by_user'),
        ),
        migrations.AddField(
            model_name='usagemonth',
            name='company',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='accounts.company'),
        ),
        migrations.AddField(
            model_name='usagemonth',
            name='user',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddIndex(
            model_name='usagemonth',
            index=models.Index(fields=['user', 'month'], name='usagemonth_by_user'),
        ),
        migrations.AddIndex(
            model_name='usagemonth',
            index=models.Index(fields=['month'], name='usagemonth_by_month'),
        ),
        migrations.AddIndex(
            model_name='usagemonth',
            index=models.Index(condition=models.Q(('company__isnull', False)), fields=['company', 'month'], name='usagemonth_by_company'),
        ),
    ]
