"""Background workers begin to copy when this migration's transaction commits; nobody waits for them here."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("visits", "0002_partition")]

    operations = [
        migrations.RunSQL("SELECT migrate_ext.start('visits')", "SELECT migrate_ext.pause('visits', 'rolled back')"),
        migrations.RunSQL("SELECT migrate_ext.resume('visits')", migrations.RunSQL.noop),  # after a way back
    ]
