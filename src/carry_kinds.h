/*-------------------------------------------------------------------------
 *
 * carry_kinds.h
 *	  The carriers there are.  carry.c tells in which order they work.
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

#endif
