/*-------------------------------------------------------------------------
 *
 * carry_kinds.h
 *	  The carriers there are, in the order in which they work.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CARRY_KINDS_H
#define MIGRATE_EXT_CARRY_KINDS_H

#include "carry.h"
#include "carry_fk_in.h"
#include "carry_named.h"
#include "carry_publications.h"
#include "carry_subscriptions.h"

extern const Carrier carry_columns;
extern const Carrier carry_checks;
extern const Carrier carry_storage;
extern const Carrier carry_statistics;
extern const Carrier carry_fk_out;
extern const Carrier carry_triggers;
extern const Carrier carry_policies;
extern const Carrier carry_comments;
extern const Carrier carry_labels;
extern const Carrier carry_grants;

/* Comments come after what they are about, privileges after all that restricts them. */
static const Carrier *const carriers[] = {
	&carry_columns, &carry_checks,	 &carry_storage,	  &carry_statistics,	&carry_fk_out,
	&carry_fk_in,	&carry_triggers, &carry_policies,	  &carry_comments,		&carry_labels,
	&carry_grants,	&carry_named,	 &carry_publications, &carry_subscriptions,
};

#endif
