/* mt_samples.c: see mt_samples.h. Sections from low to high: places, the reservoir, the calls. */
#include "mt_samples.h"

#include "mt_random.h"

/// Places ///

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t in_ring(const mt_samples *s)
{
    return least(s->state->count, s->ring);
}

static uint32_t in_reservoir(const mt_samples *s)
{
    return least(s->state->kept, s->reservoir);
}

static uint32_t stride_of(const mt_samples *s)
{
    return s->cut + s->targets + 1u;
}

/* a place of the ring, whose end is its beginning */
static uint32_t around(const mt_samples *s, uint32_t number)
{
#if defined(MT_NO_DIVIDER)
    /* few numbers lie beyond the second round */
    const uint32_t rest = number - s->ring;
    if (number < s->ring || rest < s->ring) {
        return number < s->ring ? number : rest;
    }
#endif
    return number % s->ring;
}

/* in the ring, counted from the oldest; the number of them all: where the next goes */
static mt_number *ring_at(const mt_samples *s, uint32_t age)
{
    return s->words + around(s, (uint32_t)s->state->next + s->ring - in_ring(s) + age) * stride_of(s);
}

/* in the reservoir, which lies behind the ring from its oldest on */
static mt_number *reservoir_at(const mt_samples *s, uint32_t age)
{
    return s->words + (s->ring + age) * stride_of(s);
}

MT_COLD static void put(const mt_samples *s, mt_number *to, const mt_number *sample)
{
    MT_COPY(to, sample, stride_of(s) * sizeof *to);
}

MT_COLD static void wipe(const mt_samples *s, mt_number *sample)
{
    MT_ZERO(sample, stride_of(s) * sizeof *sample);
}

MT_COLD static uint32_t time_of(const mt_samples *s, const mt_number *sample)
{
    uint32_t time;
    MT_COPY(&time, sample + s->cut + s->targets, sizeof time);
    return time;
}

/* the nearest index: a yes/no target is a probability; what is no class (NaN fails the comparison) counts as the first */
MT_COLD static uint32_t class_of(const mt_samples *s, const mt_number *sample)
{
    const mt_number target = mt_number_add(sample[s->cut], MT_NUMBER(0.5));
    return target > MT_NUMBER(0) && target < mt_number_of(s->classes) ? mt_number_whole(target) : 0u;
}

/// The reservoir ///

MT_COLD static uint32_t kept_of_class(const mt_samples *s, uint32_t class_index, uint32_t from)
{
    uint32_t count = 0;
    for (uint32_t i = from; i < in_reservoir(s); ++i) {
        count += class_of(s, reservoir_at(s, i)) == class_index ? 1u : 0u;
    }
    return count;
}

/* close the gap that one leaves */
MT_COLD static void take_out(const mt_samples *s, uint32_t index)
{
    const uint32_t last = in_reservoir(s) - 1u;
    for (uint32_t i = index; i < last; ++i) {
        put(s, reservoir_at(s, i), reservoir_at(s, i + 1u));
    }
    wipe(s, reservoir_at(s, last));
    s->state->kept = (uint16_t)last;
}

/*
 * Which one of a full reservoir makes room for a newcomer, the `seen`-th of its class; none: the number kept.
 * A class of which all was kept so far takes the place of one of the largest class; so a rare class is kept whole. A
 * class of which one was given up, or which is itself the largest, replaces one of its own by algorithm R: what is
 * kept of it is a fair draw of all of it.
 */
MT_COLD static uint32_t balanced_place(const mt_samples *s, uint32_t class_index, uint32_t seen)
{
    const uint32_t kept = in_reservoir(s), own = kept_of_class(s, class_index, 0);
    uint32_t of = class_index, most = own;
    for (uint32_t i = 0; i < kept; ++i) {
        const uint32_t other = class_of(s, reservoir_at(s, i));
        const uint32_t count = kept_of_class(s, other, i); /* all of it where i is its first */
        if (count > most) {
            most = count;
            of = other;
        }
    }
    if (own + 1u < seen) {
        of = class_index;
    }
    uint32_t rank = mt_random_below(s->random, of == class_index ? seen : most);
    for (uint32_t i = 0; i < kept; ++i) {
        if (class_of(s, reservoir_at(s, i)) == of && rank-- == 0) {
            return i;
        }
    }
    return kept;
}

MT_COLD static uint32_t count_up(uint32_t *seen)
{
    *seen += *seen < UINT32_MAX ? 1u : 0u;
    return *seen;
}

MT_COLD static void offer(const mt_samples *s, const mt_number *sample)
{
    if (s->reservoir == 0) {
        return;
    }
    const uint32_t class_index = class_of(s, sample), seen = count_up(&s->state->seen);
    const uint32_t seen_of = s->seen_of != NULL ? count_up(&s->seen_of[class_index]) : 0u;
    if (in_reservoir(s) == s->reservoir) {
        const uint32_t place = s->seen_of != NULL ? balanced_place(s, class_index, seen_of)
                                                  : mt_random_below(s->random, seen);
        if (place >= s->reservoir) {
            return;
        }
        take_out(s, place);
    }
    const uint32_t kept = in_reservoir(s);
    put(s, reservoir_at(s, kept), sample);
    s->state->kept = (uint16_t)(kept + 1u);
}

/* Each of `kept` samples stands for as many of those seen; one goes with its share. */
MT_COLD static uint32_t share_of_one(uint32_t seen, uint32_t kept)
{
    return kept > 1u ? seen / kept : seen;
}

MT_COLD static void remove_kept(const mt_samples *s, uint32_t index)
{
    uint32_t share = share_of_one(s->state->seen, in_reservoir(s));
    if (s->seen_of != NULL) {
        const uint32_t class_index = class_of(s, reservoir_at(s, index));
        share = share_of_one(s->seen_of[class_index], kept_of_class(s, class_index, 0));
        s->seen_of[class_index] -= share;
    }
    s->state->seen -= least(share, s->state->seen);
    take_out(s, index);
}

/// The calls ///

uint32_t mt_samples_size(const mt_samples *s)
{
    return in_reservoir(s) + in_ring(s);
}

const mt_number *mt_samples_at(const mt_samples *s, uint32_t index)
{
    const uint32_t kept = in_reservoir(s);
    return index < kept ? reservoir_at(s, index) : ring_at(s, index - kept);
}

MT_COLD void mt_samples_add(const mt_samples *s, const mt_number *cut, const mt_number *target, uint32_t time)
{
    const uint32_t count = in_ring(s);
    mt_number *sample = ring_at(s, count);
    if (count == s->ring) {
        offer(s, sample); /* the next place of a full ring is that of its oldest */
    }
    mt_copy_words(sample, cut, s->cut);
    mt_copy_words(sample + s->cut, target, s->targets);
    MT_COPY(sample + s->cut + s->targets, &time, sizeof time);
    s->state->next = (uint16_t)around(s, (uint32_t)s->state->next + 1u);
    s->state->count = (uint16_t)least(count + 1u, s->ring);
}

MT_COLD void mt_samples_drop_newest(const mt_samples *s, uint32_t count)
{
    uint32_t left = in_ring(s);
    for (uint32_t dropped = least(count, left); dropped > 0; --dropped) {
        --left;
        wipe(s, ring_at(s, left));
        s->state->next = (uint16_t)around(s, (uint32_t)s->state->next + s->ring - 1u);
        s->state->count = (uint16_t)left;
    }
}

/* of the newest, down to the index `first` */
MT_COLD static uint32_t newest_since(const mt_samples *s, uint32_t time, uint32_t now, uint32_t first)
{
    const uint32_t size = mt_samples_size(s);
    uint32_t index = size, after = now;
    for (; index > first; --index) {
        const uint32_t stamp = time_of(s, mt_samples_at(s, index - 1u));
        if (stamp < time || stamp > after) {
            break;
        }
        after = stamp;
    }
    return size - index;
}

MT_COLD uint32_t mt_samples_since(const mt_samples *s, uint32_t time, uint32_t now)
{
    return newest_since(s, time, now, in_reservoir(s));
}

MT_COLD void mt_samples_drop_since(const mt_samples *s, uint32_t time, uint32_t now)
{
    const uint32_t found = newest_since(s, time, now, 0), ring = least(found, in_ring(s));
    mt_samples_drop_newest(s, ring);
    for (uint32_t rest = found - ring; rest > 0; --rest) {
        remove_kept(s, in_reservoir(s) - 1u);
    }
}

MT_COLD void mt_samples_remove(const mt_samples *s, uint32_t index)
{
    const uint32_t kept = in_reservoir(s), count = in_ring(s);
    if (index < kept) {
        remove_kept(s, index);
    } else if (index - kept < count) {
        for (uint32_t age = index - kept; age + 1u < count; ++age) {
            put(s, ring_at(s, age), ring_at(s, age + 1u));
        }
        mt_samples_drop_newest(s, 1);
    }
}

MT_COLD void mt_samples_clear(const mt_samples *s)
{
    MT_ZERO(s->state, sizeof *s->state);
    MT_ZERO(s->words, ((uint32_t)s->ring + s->reservoir) * stride_of(s) * sizeof *s->words);
    if (s->seen_of != NULL) {
        MT_ZERO(s->seen_of, s->classes * sizeof *s->seen_of);
    }
}
