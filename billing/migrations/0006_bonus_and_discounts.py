"""Keep bonus tokens apart, and let purchases have quantities, discounts and promo codes.

What of each balance is bonus is computed from the transfers that there are. These keep their rows as they are, so `bonus_after` and
`place` are empty there. SQLite rebuilds altered tables, which the triggers do not survive: they are taken off before, and put on
again at the end.
"""

from importlib import import_module

import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.datetime
import django.db.models.functions.text
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

books = import_module("billing.migrations.0002_books")

# A walk that starts at zero and stops there when it would go below: its end is the sum of all steps, less the lowest sum that was
# reached on the way.
BONUS_OF_OLD_ROWS = """
UPDATE billing_account SET bonus = (
    SELECT COALESCE(SUM(step) - MIN(CASE WHEN so_far < 0 THEN so_far ELSE 0 END), 0)
    FROM (
        SELECT step, SUM(step) OVER (ORDER BY {order}) AS so_far FROM (
            SELECT {columns}, CASE WHEN t.credit_id <> billing_account.id THEN -t.amount
                WHEN t.kind = 'bonus' THEN t.amount ELSE 0 END AS step
            FROM billing_transfer t
            WHERE t.phase IN ('single', 'post') AND (t.debit_id = billing_account.id OR t.credit_id = billing_account.id)
        ) steps
    ) walk
) WHERE unit = 'TOKEN' AND user_id IS NOT NULL AND EXISTS (
    SELECT 1 FROM billing_transfer given WHERE given.credit_id = billing_account.id AND given.kind = 'bonus'
)
"""


def open_books(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "sqlite":
        books.reopen_books(apps, schema_editor)


def close_books(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "sqlite":
        books.close_books(apps, schema_editor)


def compute_bonus(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    is_sqlite = schema_editor.connection.vendor == "sqlite"
    # The moment of a row was taken while its account was locked; SQLite counts its rows.
    order = {"order": "place", "columns": "t.rowid AS place"} if is_sqlite else {"order": "created_at, id", "columns": "t.created_at, t.id"}
    schema_editor.execute(BONUS_OF_OLD_ROWS.format(**order), params=None)


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0005_corrections_and_notices'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunPython(open_books, close_books),
        migrations.CreateModel(
            name='FirstPurchaseBonus',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=80, verbose_name='name')),
                ('bonus_tokens', models.PositiveBigIntegerField(verbose_name='bonus tokens')),
                ('minimum_idr', models.PositiveBigIntegerField(default=0, help_text='Rupiah, after the quantity discount.', verbose_name='from this price on')),
                ('starts_at', models.DateTimeField(blank=True, null=True, verbose_name='holds from')),
                ('ends_at', models.DateTimeField(blank=True, null=True, verbose_name='holds until')),
                ('is_active', models.BooleanField(default=True, verbose_name='active')),
            ],
            options={
                'verbose_name': 'bonus of the first purchase',
                'verbose_name_plural': 'bonuses of the first purchase',
            },
        ),
        migrations.CreateModel(
            name='PromoCode',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('code', models.CharField(max_length=40, unique=True, verbose_name='code')),
                ('kind', models.CharField(choices=[('percent', 'per cent less'), ('rupiah', 'rupiah less'), ('tokens', 'bonus tokens')], max_length=7, verbose_name='kind')),
                ('amount', models.PositiveBigIntegerField(help_text='Per cent, rupiah or tokens, as the kind says.', verbose_name='amount')),
                ('minimum_idr', models.PositiveBigIntegerField(default=0, help_text='Rupiah, after the quantity discount.', verbose_name='from this price on')),
                ('total_limit', models.PositiveIntegerField(blank=True, help_text='Empty: as many as there are people.', null=True, verbose_name='uses in all')),
                ('user_limit', models.PositiveIntegerField(blank=True, default=1, help_text='Empty: as often as he likes.', null=True, verbose_name='uses by one person')),
                ('starts_at', models.DateTimeField(blank=True, null=True, verbose_name='holds from')),
                ('ends_at', models.DateTimeField(blank=True, null=True, verbose_name='holds until')),
                ('is_active', models.BooleanField(default=True, verbose_name='active')),
                ('note', models.CharField(blank=True, help_text='What it is for. Staff only.', max_length=200, verbose_name='note')),
            ],
            options={
                'verbose_name': 'promo code',
                'verbose_name_plural': 'promo codes',
            },
        ),
        migrations.CreateModel(
            name='QuantityDiscount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('from_quantity', models.PositiveSmallIntegerField(verbose_name='from this many on')),
                ('percent', models.PositiveSmallIntegerField(verbose_name='per cent less')),
            ],
            options={
                'verbose_name': 'quantity discount',
                'verbose_name_plural': 'quantity discounts',
            },
        ),
        migrations.CreateModel(
            name='Redemption',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('place', models.PositiveIntegerField(verbose_name='use of the code')),
                ('user_place', models.PositiveIntegerField(verbose_name='use by this person')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), verbose_name='used')),
            ],
            options={
                'verbose_name': 'use of a promo code',
                'verbose_name_plural': 'uses of promo codes',
            },
        ),
        migrations.CreateModel(
            name='Refill',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('terms', models.CharField(max_length=80)),
                ('below_tokens', models.PositiveBigIntegerField(verbose_name='below this many tokens')),
                ('monthly_limit_idr', models.PositiveBigIntegerField(verbose_name='at most in a month')),
                ('is_on', models.BooleanField(default=True, verbose_name='on')),
                ('paused_for', models.CharField(blank=True, choices=[('wallet', 'not enough money in the wallet'), ('limit', 'the limit of this month is reached'), ('terms', 'the package has changed'), ('frozen', 'the account is frozen')], default='', max_length=6, verbose_name='paused')),
                ('changed_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='changed')),
            ],
            options={
                'verbose_name': 'refill',
                'verbose_name_plural': 'refills',
            },
        ),
        migrations.AddField(
            model_name='account',
            name='bonus',
            field=models.BigIntegerField(default=0, verbose_name='of these bonus'),
        ),
        migrations.AddField(
            model_name='account',
            name='moves',
            field=models.BigIntegerField(default=0, help_text='How many transfers there were since they are counted.', verbose_name='transfers'),
        ),
        migrations.AddField(
            model_name='account',
            name='refill_below',
            field=models.BigIntegerField(blank=True, help_text='A package is bought by itself when fewer tokens are left. Set by `billing.refills`.', null=True, verbose_name='refill below'),
        ),
        migrations.AddField(
            model_name='purchase',
            name='first_bonus_tokens',
            field=models.PositiveBigIntegerField(default=0, verbose_name='of these for the first purchase'),
        ),
        migrations.AddField(
            model_name='purchase',
            name='is_automatic',
            field=models.BooleanField(default=False, verbose_name='bought by itself'),
        ),
        migrations.AddField(
            model_name='purchase',
            name='promo_bonus_tokens',
            field=models.PositiveBigIntegerField(default=0, verbose_name='of these by the promo code'),
        ),
        migrations.AddField(
            model_name='purchase',
            name='promo_code',
            field=models.CharField(blank=True, default='', max_length=40, verbose_name='promo code'),
        ),
        migrations.AddField(
            model_name='purchase',
            name='promo_discount_idr',
            field=models.PositiveBigIntegerField(default=0, verbose_name='promo discount'),
        ),
        migrations.AddField(
            model_name='purchase',
            name='quantity',
            field=models.PositiveSmallIntegerField(default=1, verbose_name='quantity'),
        ),
        migrations.AddField(
            model_name='purchase',
            name='quantity_discount_idr',
            field=models.PositiveBigIntegerField(default=0, verbose_name='quantity discount'),
        ),
        migrations.AddField(
            model_name='purchase',
            name='quantity_percent',
            field=models.PositiveSmallIntegerField(default=0, verbose_name='quantity discount in per cent'),
        ),
        migrations.AddField(
            model_name='transfer',
            name='bonus_after',
            field=models.BigIntegerField(help_text='What was bonus of that balance. None of old rows.', null=True, verbose_name='bonus after'),
        ),
        migrations.AddField(
            model_name='transfer',
            name='place',
            field=models.BigIntegerField(help_text="Its place among the transfers of the user's account. None of old rows.", null=True, verbose_name='place'),
        ),
        migrations.AddConstraint(
            model_name='account',
            constraint=models.CheckConstraint(condition=models.Q(('bonus__gte', 0), ('bonus__lte', models.F('balance'))), name='account_bonus_is_part_of_balance'),
        ),
        migrations.AddConstraint(
            model_name='account',
            constraint=models.CheckConstraint(condition=models.Q(('unit', 'TOKEN'), ('bonus', 0), _connector='OR'), name='account_bonus_is_tokens'),
        ),
        migrations.AddConstraint(
            model_name='purchase',
            constraint=models.UniqueConstraint(condition=models.Q(('first_bonus_tokens__gt', 0)), fields=('user',), name='purchase_is_first_once'),
        ),
        migrations.AddConstraint(
            model_name='purchase',
            constraint=models.CheckConstraint(condition=models.Q(('bonus_tokens__gte', django.db.models.expressions.CombinedExpression(models.F('first_bonus_tokens'), '+', models.F('promo_bonus_tokens'))), ('quantity__gte', 1)), name='purchase_bonus_has_its_parts'),
        ),
        migrations.AddConstraint(
            model_name='firstpurchasebonus',
            constraint=models.CheckConstraint(condition=models.Q(('bonus_tokens__gt', 0)), name='first_bonus_has_tokens'),
        ),
        migrations.AddField(
            model_name='promocode',
            name='packages',
            field=models.ManyToManyField(blank=True, help_text='None means all of them.', related_name='+', to='billing.package', verbose_name='packages'),
        ),
        migrations.AddField(
            model_name='quantitydiscount',
            name='package',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='quantity_discounts', to='billing.package', verbose_name='package'),
        ),
        migrations.AddField(
            model_name='redemption',
            name='promo',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='redemptions', to='billing.promocode', verbose_name='promo code'),
        ),
        migrations.AddField(
            model_name='redemption',
            name='purchase',
            field=models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='redemption', to='billing.purchase', verbose_name='purchase'),
        ),
        migrations.AddField(
            model_name='redemption',
            name='user',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='user'),
        ),
        migrations.AddField(
            model_name='refill',
            name='package',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.package', verbose_name='package'),
        ),
        migrations.AddField(
            model_name='refill',
            name='user',
            field=models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='user'),
        ),
        migrations.AddConstraint(
            model_name='promocode',
            constraint=models.CheckConstraint(condition=models.Q(('amount__gt', 0), models.Q(models.Q(('kind', 'percent'), _negated=True), ('amount__lte', 90), _connector='OR')), name='promo_amount_fits_its_kind', violation_error_message='An amount is at least 1, and at most 90 per cent.'),
        ),
        migrations.AddConstraint(
            model_name='promocode',
            constraint=models.CheckConstraint(condition=models.Q(('code', django.db.models.functions.text.Upper(models.F('code'))), models.Q(('code', ''), _negated=True)), name='promo_code_in_capitals'),
        ),
        migrations.AddConstraint(
            model_name='quantitydiscount',
            constraint=models.UniqueConstraint(fields=('package', 'from_quantity'), name='quantity_discount_once', violation_error_message='There is a discount from this quantity on.'),
        ),
        migrations.AddConstraint(
            model_name='quantitydiscount',
            constraint=models.CheckConstraint(condition=models.Q(('from_quantity__gte', 2), ('from_quantity__lte', 100)), name='quantity_discount_for_several', violation_error_message='A quantity discount begins between 2 and 100.'),
        ),
        migrations.AddConstraint(
            model_name='quantitydiscount',
            constraint=models.CheckConstraint(condition=models.Q(('percent__gte', 1), ('percent__lte', 90)), name='quantity_discount_percent', violation_error_message='A discount is between 1 and 90 per cent.'),
        ),
        migrations.AddConstraint(
            model_name='redemption',
            constraint=models.UniqueConstraint(fields=('promo', 'place'), name='redemption_place'),
        ),
        migrations.AddConstraint(
            model_name='redemption',
            constraint=models.UniqueConstraint(fields=('promo', 'user', 'user_place'), name='redemption_place_of_user'),
        ),
        migrations.AddConstraint(
            model_name='refill',
            constraint=models.CheckConstraint(condition=models.Q(('below_tokens__gt', 0), ('monthly_limit_idr__gt', 0)), name='refill_has_limits'),
        ),
        migrations.RunPython(compute_bonus, migrations.RunPython.noop),
        migrations.RunPython(close_books, open_books),
    ]
