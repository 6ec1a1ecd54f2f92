/*
 * mt_migration.h: take over what an older build of the same model had learnt.
 *
 * New firmware whose network is the same but whose settings, buffer or code are not has another identity, and
 * mt_store_load says MT_STATE_FOREIGN. Counters mean the same in every build; parameters do where the same tensors
 * learn. Samples and optimiser state are left behind.
 */
#ifndef MT_MIGRATION_H
#define MT_MIGRATION_H

#include "mt_store.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Take over an older build's state: what a mt_migrate does that knows no build in particular. `payload` holds this
 * build's state as it left the factory, `bytes` in all; of its parameters the first `floats` words are floats, the others
 * integers. The metrics are taken over; and, where the same tensors learn for as many profiles and contexts, the
 * parameters of all of them and the profile in use, MT_RECOGNISE too: the caller knows whether this build can.
 * Returns 0; anything else, with `payload` undefined, when the version of the old state is not known, a part of it is
 * not there, or a value in it is not finite.
 */
int mt_migration_take(const mt_old_state *old, void *payload, uint32_t bytes, uint32_t floats);

#ifdef __cplusplus
}
#endif

#endif
