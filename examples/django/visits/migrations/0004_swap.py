"""From here on visits is the partitioned table; visits_orig is kept up to date for the way back."""

from django.db import migrations


class Migration(migrations.Migration):
    atomic = False  # procedures wait between transactions of their own

    dependencies = [("visits", "0003_start")]

    operations = [
        migrations.RunSQL("CALL migrate_ext.wait_for('visits', 'live')", migrations.RunSQL.noop),
        migrations.RunSQL("CALL migrate_ext.finalize('visits')", "CALL migrate_ext.undo('visits')"),
    ]
