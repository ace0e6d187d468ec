/*-------------------------------------------------------------------------
 *
 * label_provider.c
 *	  A provider of security labels, for the tests: LOAD 'label_provider', then
 *	  SECURITY LABEL FOR test_labels ON TABLE t IS 'secret'.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/objectaddress.h"
#include "commands/seclabel.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

void _PG_init(void);

static void
check_label(const ObjectAddress *object, const char *label)
{
	if (label != NULL && strcmp(label, "public") != 0 && strcmp(label, "secret") != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
						errmsg("\"%s\" is not a label of provider test_labels", label)));
}

void
_PG_init(void)
{
	register_label_provider("test_labels", check_label);
}
