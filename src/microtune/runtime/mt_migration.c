/* mt_migration.c: see mt_migration.h. The old payload is not trusted: nothing outside it is read. */
#include "mt_migration.h"

#include "mt_learner.h"

/* Is the whole of what the learner has learnt within so many bytes of payload? */
MT_COLD static int is_within(const mt_state *state, uint32_t bytes)
{
    const uint32_t words = state->parameters;
    const uint32_t people = (uint32_t)state->profiles * state->contexts; /* below 2^32 */
    if (state->people_at > bytes || state->parameters_at > state->person_bytes || people == 0 ||
        words > (state->person_bytes - state->parameters_at) / 4u) {
        return 0;
    }
    return state->person_bytes == 0 || people <= (bytes - state->people_at) / state->person_bytes;
}

MT_COLD static int learn_alike(const mt_state *a, const mt_state *b)
{
    return a->structure == b->structure && a->parameters == b->parameters && a->profiles == b->profiles &&
           a->contexts == b->contexts;
}

MT_COLD static int take_parameters(const mt_old_state *old, const mt_state *from, uint8_t *payload, const mt_state *to,
                                   uint32_t floats)
{
    const uint32_t people = (uint32_t)to->profiles * to->contexts;
    for (uint32_t person = 0; person < people; ++person) {
        const uint32_t there = from->people_at + person * from->person_bytes + from->parameters_at;
        const uint32_t here = to->people_at + person * to->person_bytes + to->parameters_at;
        if (mt_store_read(old, there, payload + here, 4u * to->parameters) != 0) {
            return -1;
        }
        for (uint32_t i = 0; i < floats; ++i) {
            mt_number value;
            MT_COPY(&value, payload + here + 4u * i, sizeof value);
            if (!mt_number_all_finite(&value, 1)) {
                return -1;
            }
        }
    }
    return 0;
}

MT_COLD int mt_migration_take(const mt_old_state *old, void *payload, uint32_t bytes, uint32_t floats)
{
    mt_state *to = (mt_state *)payload;
    mt_state from;
    if (mt_store_read(old, 0, &from, sizeof from) != 0 || from.version != MT_STATE_VERSION ||
        from.numbers != to->numbers || !mt_number_all_finite(&from.metrics.mean_error, 1)) {
        return -1;
    }
    if (learn_alike(&from, to)) {
        if (!is_within(&from, old->bytes) || !is_within(to, bytes) || floats > to->parameters ||
            take_parameters(old, &from, (uint8_t *)payload, to, floats) != 0) {
            return -1;
        }
        if (from.profile < to->profiles) {
            to->profile = from.profile;
            to->last = (uint16_t)(from.profile * to->contexts);
        } else if (from.profile == MT_RECOGNISE) {
            to->profile = MT_RECOGNISE;
        }
    }
    to->metrics = from.metrics;
    return 0;
}
