/*-------------------------------------------------------------------------
 *
 * carry_subscriptions.h
 *	  Subscriptions that feed the table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CARRY_SUBSCRIPTIONS_H
#define MIGRATE_EXT_CARRY_SUBSCRIPTIONS_H

#include "carry.h"

extern const Carrier carry_subscriptions;

#endif
