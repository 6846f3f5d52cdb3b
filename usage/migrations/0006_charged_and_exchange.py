

import django.core.validators
from decimal import Decimal
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('usage', '0005_rollups'),
    ]

    operations = [
        migrations.AddField(
            model_name='tokenusage',
            name='charged_idr_thousandths',
            field=models.PositiveBigIntegerField(default=0, help_text='What their owner had last paid for so many tokens, bonus included.', verbose_name='charged, thousandths of a rupiah'),
        ),
        migrations.AddField(
            model_name='tokenusage',
            name='charged_tokens',
            field=models.PositiveBigIntegerField(default=0, help_text='Aleph tokens that were taken for it.', verbose_name='charged'),
        ),
        migrations.AddField(
            model_name='usageday',
            name='charged_idr_thousandths',
            field=models.PositiveBigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='usageday',
            name='charged_tokens',
            field=models.PositiveBigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='usagehour',
            name='charged_idr_thousandths',
            field=models.PositiveBigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='usagehour',
            name='charged_tokens',
            field=models.PositiveBigIntegerField(default=0),
        ),
        migrations.CreateModel(
            name='ExchangeRate',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('valid_on', models.DateField(unique=True, verbose_name='from day')),
                ('idr_per_usd', models.DecimalField(decimal_places=2, max_digits=10, validators=[django.core.validators.MinValueValidator(Decimal('1000')), django.core.validators.MaxValueValidator(Decimal('1000000'))], verbose_name='rupiah for a US dollar')),
                ('source', models.CharField(blank=True, max_length=200, verbose_name='source')),
            ],
            options={
                'verbose_name': 'exchange rate',
                'verbose_name_plural': 'exchange rates',
                'constraints': [models.CheckConstraint(condition=models.Q(('idr_per_usd__gte', 1000), ('idr_per_usd__lte', 1000000)), name='rate_plausible')],
            },
        ),
    ]
