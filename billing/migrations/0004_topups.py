"""Top-ups, the notices of gateways, and the house's account of what people owe after a payment went back."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps


def open_receivable(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    accounts = apps.get_model("billing", "Account").objects.using(schema_editor.connection.alias)
    accounts.get_or_create(user=None, name="receivable", defaults={"unit": "IDR"})


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0003_audit_rounds'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='SandboxPayment',
            fields=[
                ('reference', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('amount_idr', models.PositiveBigIntegerField()),
                ('paid_idr', models.PositiveBigIntegerField(default=0)),
                ('refunded_idr', models.PositiveBigIntegerField(default=0)),
                ('state', models.CharField(default='pending', max_length=8)),
                ('notices', models.PositiveIntegerField(default=0)),
                ('changed_at', models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                'verbose_name': 'sandbox payment',
                'verbose_name_plural': 'sandbox payments',
            },
        ),
        migrations.CreateModel(
            name='TopUp',
            fields=[
                ('id', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('gateway', models.CharField(max_length=20, verbose_name='gateway')),
                ('state', models.CharField(choices=[('created', 'being prepared'), ('pending', 'waiting for payment'), ('paid', 'paid'), ('expired', 'expired'), ('failed', 'failed'), ('refunded', 'refunded')], default='created', max_length=8, verbose_name='state')),
                ('amount_idr', models.PositiveBigIntegerField(verbose_name='amount in rupiah')),
                ('refunded_idr', models.PositiveBigIntegerField(default=0, verbose_name='given back in rupiah')),
                ('owed_idr', models.PositiveBigIntegerField(default=0, verbose_name='owed in rupiah')),
                ('key', models.CharField(max_length=128)),
                ('gateway_id', models.CharField(blank=True, max_length=128, verbose_name='id at the gateway')),
                ('payment_id', models.CharField(blank=True, max_length=128, verbose_name='payment at the gateway')),
                ('pay_url', models.CharField(blank=True, max_length=2000, verbose_name='payment page')),
                ('return_to', models.CharField(blank=True, max_length=200)),
                ('problem', models.CharField(blank=True, max_length=200, verbose_name='problem')),
                ('flag', models.CharField(blank=True, help_text='Why staff have to look at it.', max_length=200, verbose_name='to be looked at')),
                ('was_late', models.BooleanField(default=False, verbose_name='paid late')),
                ('calling_until', models.DateTimeField(blank=True, null=True)),
                ('ask_at', models.DateTimeField(blank=True, null=True, verbose_name='asked again')),
                ('asked_at', models.DateTimeField(blank=True, null=True, verbose_name='last asked')),
                ('expires_at', models.DateTimeField(verbose_name='payable until')),
                ('paid_at', models.DateTimeField(blank=True, null=True, verbose_name='paid')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created')),
                ('changed_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='changed')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='user')),
            ],
            options={
                'verbose_name': 'top-up',
                'verbose_name_plural': 'top-ups',
            },
        ),
        migrations.CreateModel(
            name='GatewayEvent',
            fields=[
                ('id', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('gateway', models.CharField(max_length=20, verbose_name='gateway')),
                ('key', models.CharField(max_length=200, verbose_name='event')),
                ('kind', models.CharField(max_length=80, verbose_name='kind')),
                ('reference', models.CharField(blank=True, max_length=128, verbose_name='reference')),
                ('body', models.TextField(verbose_name='body')),
                ('deliveries', models.PositiveIntegerField(default=1, verbose_name='deliveries')),
                ('tries', models.PositiveSmallIntegerField(default=0, verbose_name='tries')),
                ('outcome', models.CharField(blank=True, max_length=80, verbose_name='outcome')),
                ('due_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='due')),
                ('received_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='received')),
                ('handled_at', models.DateTimeField(blank=True, null=True, verbose_name='handled')),
                ('topup', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='events', to='billing.topup', verbose_name='top-up')),
            ],
            options={
                'verbose_name': 'gateway event',
                'verbose_name_plural': 'gateway events',
            },
        ),
        migrations.AddIndex(
            model_name='topup',
            index=models.Index(fields=['user', '-id'], name='topup_by_user'),
        ),
        migrations.AddIndex(
            model_name='topup',
            index=models.Index(condition=models.Q(('ask_at__isnull', False)), fields=['ask_at'], name='topup_to_ask'),
        ),
        migrations.AddIndex(
            model_name='topup',
            index=models.Index(condition=models.Q(('payment_id', ''), _negated=True), fields=['payment_id'], name='topup_by_payment'),
        ),
        migrations.AddIndex(
            model_name='topup',
            index=models.Index(condition=models.Q(('flag', ''), _negated=True), fields=['id'], name='topup_flagged'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.UniqueConstraint(fields=('user', 'key'), name='topup_once_per_key'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.UniqueConstraint(condition=models.Q(('gateway_id', ''), _negated=True), fields=('gateway', 'gateway_id'), name='topup_once_per_gateway_id'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.CheckConstraint(condition=models.Q(('amount_idr__gt', 0)), name='topup_amount_positive'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.CheckConstraint(condition=models.Q(('owed_idr__lte', models.F('refunded_idr')), ('refunded_idr__lte', models.F('amount_idr'))), name='topup_returns_what_came'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('paid_at__isnull', False), ('state__in', ['paid', 'refunded'])), models.Q(('paid_at', None), ('refunded_idr', 0), ('state__in', ['created', 'pending', 'expired', 'failed'])), _connector='OR'), name='topup_paid_has_moment'),
        ),
        migrations.AddIndex(
            model_name='gatewayevent',
            index=models.Index(condition=models.Q(('handled_at', None)), fields=['due_at'], name='gateway_event_open'),
        ),
        migrations.AddIndex(
            model_name='gatewayevent',
            index=models.Index(fields=['reference'], name='gateway_event_by_reference'),
        ),
        migrations.AddConstraint(
            model_name='gatewayevent',
            constraint=models.UniqueConstraint(fields=('gateway', 'key'), name='gateway_event_once'),
        ),
        migrations.RunPython(open_receivable, migrations.RunPython.noop),
    ]
