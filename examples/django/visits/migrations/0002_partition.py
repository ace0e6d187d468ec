"""Makes visits_new and its partitions, a month each, empty; visits is not touched yet. Called again it changes nothing."""

from django.db import migrations


class Migration(migrations.Migration):
    atomic = False  # for the way back, which waits

    dependencies = [("visits", "0001_create")]

    operations = [
        # a superuser's business; no more than a NOTICE where it is there
        migrations.RunSQL("CREATE EXTENSION IF NOT EXISTS migrate_ext", migrations.RunSQL.noop),
        migrations.RunSQL(
            "SELECT migrate_ext.partition_by_range('visits', 'at', interval '1 month')",
            "CALL migrate_ext.cancel('visits')",
        ),
    ]
