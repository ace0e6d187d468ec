/*-------------------------------------------------------------------------
 *
 * sample.c
 *	  Notes down how deep the change log is, for report().
 *
 * Each second at first, later as seldom as a two-hundredth of the migration's
 * age: whatever it takes, there are about two hundred samples for each time that
 * the age is multiplied by e.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "catalog_spi.h"
#include "changelog.h"
#include "sample.h"

/* No sample before so many milliseconds. */
#define SAMPLE_LEAST_MS 1000

/* Counting ends here, as in the view progress. */
#define SAMPLE_MOST 100000

/* When this process looked last whether one is due. */
static int64 looked_id = 0;
static TimestampTz looked_at = 0;

static bool
is_due(const Migration *m)
{
	TimestampTz now = GetCurrentTimestamp();
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(m->id)};

	if (looked_id == m->id && !TimestampDifferenceExceeds(looked_at, now, SAMPLE_LEAST_MS))
		return false;
	looked_id = m->id;
	looked_at = now;
	return !catalog_exists(
		"SELECT FROM migrate_ext.migration m JOIN migrate_ext.sample s ON s.migration = m.id"
		" WHERE m.id = $1 AND s.at > pg_catalog.clock_timestamp()"
		" - (pg_catalog.clock_timestamp() - m.created_at) / 200",
		1, types, values);
}

void
sample_take(Migration *m)
{
	Oid types[] = {INT8OID, INT8OID};
	Datum values[2];

	if (!OidIsValid(m->log) || !is_due(m) || !ConditionalLockRelationOid(m->log, AccessShareLock))
		return;
	if (get_rel_name(m->log) == NULL) /* dropped meanwhile */
		return;
	values[0] = Int64GetDatum(m->id);
	values[1] = Int64GetDatum(changelog_pending(m, SAMPLE_MOST));
	(void) catalog_exec("INSERT INTO migrate_ext.sample (migration, log_entries) VALUES ($1, $2)"
						" ON CONFLICT DO NOTHING",
						2, types, values, NULL);
}
