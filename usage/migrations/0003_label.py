from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0002_postgresql")]

    operations = [
        migrations.AddField(
            model_name="tokenusage",
            name="label",
            field=models.CharField(blank=True, max_length=80, verbose_name="model for people"),
        ),
    ]
