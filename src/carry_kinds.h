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

extern const Carrier carry_fk_out;
extern const Carrier carry_triggers;

static const Carrier *const carriers[] = {
	&carry_fk_out,
	&carry_triggers,
};

#endif
