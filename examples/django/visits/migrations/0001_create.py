from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.CreateModel(
            name="Visit",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("site", models.IntegerField(db_index=True)),
                ("path", models.TextField()),
                ("hits", models.IntegerField(default=0)),
                ("referrer", models.TextField(null=True)),
                ("at", models.DateTimeField()),
            ],
            options={"db_table": "visits"},
        ),
    ]
