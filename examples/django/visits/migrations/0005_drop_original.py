"""The end: visits_orig goes, and with it the way back."""

from django.db import migrations


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("visits", "0004_swap")]

    operations = [
        migrations.RunSQL("CALL migrate_ext.complete('visits', drop_original => true)"),
    ]
