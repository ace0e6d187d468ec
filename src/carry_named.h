/*-------------------------------------------------------------------------
 *
 * carry_named.h
 *	  What names the table in a stored expression or query, and what is of its
 *	  row type: views, rules, functions, policies of other tables, ...
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CARRY_NAMED_H
#define MIGRATE_EXT_CARRY_NAMED_H

#include "carry.h"

extern const Carrier carry_named;

/* Are the straggler triggers there, or will they be made? */
extern bool carry_named_has_straggler(const Migration *m);

#endif
