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
#include "carry_named.h"
#include "carry_publications.h"
#include "carry_subscriptions.h"

extern const Carrier carry_policies;
extern const Carrier carry_grants;

static const Carrier *const carriers[] = {
	&carry_policies,
	&carry_grants,
	&carry_named,
	&carry_publications,
	&carry_subscriptions,
};

#endif
