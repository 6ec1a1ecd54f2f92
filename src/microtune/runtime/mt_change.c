/* mt_change.c: see mt_change.h for the calls; steps in brackets are those of docs/change.md. */
#include "mt_change.h"

#include "mt_math.h"

/* evidence needed, as a log likelihood ratio: among several classes, and between yes and no, where carelessness always
 * looks the same (step 5) */
#define MT_CHANGE_EVIDENCE 6.5f
#define MT_CHANGE_EVIDENCE_BINARY 7.0f
/* ... and so many times that while all uses of the run say the same */
#define MT_CHANGE_BLOCK 2.0f
/* uses farther from what is known than this many usual deviations are new ground (step 1) */
#define MT_CHANGE_KNOWN 2.0f
/* a use is in the territory of its own label if that is no farther than this many usual distances (step 2) */
#define MT_CHANGE_OWN 1.2f
/* samples of a label that make it known (step 2) */
#define MT_CHANGE_SEEN 4u
/* of the neighbours: what each label counts for beforehand (step 3) */
#define MT_CHANGE_PRIOR 0.25f
/* share of careless uses: never below MT_CHANGE_LEAST_WRONG; they count for one in so many */
#define MT_CHANGE_LEAST_WRONG 0.03f
#define MT_CHANGE_SLOW 32.0f
/* after a change, uses that do as before, and that do neither as before nor as the first that changed (step 4) */
#define MT_CHANGE_AS_BEFORE 0.2f
#define MT_CHANGE_OTHERWISE 0.2f
/* samples so many known distances around the uses that changed are affected (step 6) */
#define MT_CHANGE_REACH 1.5f

/// Samples ///

static float distance_squared(const mt_change *change, const mt_samples *samples, const float *a, const float *b)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < samples->cut; ++i) {
        if (change->bytes) {
            const uint32_t p = mt_float_bits(a[i]), q = mt_float_bits(b[i]);
            for (uint32_t shift = 0; shift < 32; shift += 8) {
                /* signed bytes with their sign bit turned are unsigned ones in the same order */
                const float left = (float)((p >> shift ^ 0x80u) & 0xFFu), right = (float)((q >> shift ^ 0x80u) & 0xFFu);
                sum += (left - right) * (left - right);
            }
        } else {
            sum += (a[i] - b[i]) * (a[i] - b[i]);
        }
    }
    return sum;
}

MT_COLD static uint32_t questions_of(const mt_change *change)
{
    return change->binary ? change->kinds / 2u : 1u;
}

/* labels to a question */
MT_COLD static uint32_t labels_of(const mt_change *change)
{
    return change->binary ? 2u : change->kinds;
}

MT_COLD static uint32_t label_of(const mt_change *change, const mt_samples *samples, const float *sample, uint32_t question)
{
    const float target = sample[samples->cut + question];
    if (change->binary) {
        return target >= 0.5f;
    }
    return target > 0.0f && target < (float)change->kinds ? (uint32_t)target : 0u;
}

MT_COLD static mt_change_class *class_of(const mt_change *change, uint32_t question, uint32_t label)
{
    return change->classes + (change->binary ? 2u * question : 0u) + label;
}

/// What was meant so far ///

typedef struct neighbours {
    uint32_t index[MT_CHANGE_NEAREST]; /* ascending by distance */
    float distance[MT_CHANGE_NEAREST];
    uint32_t count;
} neighbours;

/* of the first `older` samples, those nearest to one */
static neighbours nearest_to(const mt_change *change, const mt_samples *samples, const float *sample, uint32_t older)
{
    neighbours found;
    found.count = 0;
    for (uint32_t i = 0; i < older; ++i) {
        const float distance = distance_squared(change, samples, mt_samples_at(samples, i), sample);
        uint32_t place = found.count;
        if (place == MT_CHANGE_NEAREST && !(distance < found.distance[place - 1])) {
            continue;
        }
        place = place < MT_CHANGE_NEAREST ? found.count++ : place - 1;
        for (; place > 0 && found.distance[place - 1] > distance; --place) {
            found.distance[place] = found.distance[place - 1];
            found.index[place] = found.index[place - 1];
        }
        found.distance[place] = distance;
        found.index[place] = i;
    }
    return found;
}

/* Neighbours that say `label`. */
MT_COLD static uint32_t votes_for(const mt_change *change, const mt_samples *samples, const neighbours *near, uint32_t question,
                          uint32_t label)
{
    uint32_t votes = 0;
    for (uint32_t i = 0; i < near->count; ++i) {
        votes += label_of(change, samples, mt_samples_at(samples, near->index[i]), question) == label;
    }
    return votes;
}

/* what most neighbours say, or `labels` when there is no majority (step 1) */
MT_COLD static uint32_t usual_label(const mt_change *change, const mt_samples *samples, const neighbours *near,
                            uint32_t question)
{
    for (uint32_t i = 0; 2 * i <= MT_CHANGE_NEAREST && i < near->count; ++i) {
        const uint32_t label = label_of(change, samples, mt_samples_at(samples, near->index[i]), question);
        if (2 * votes_for(change, samples, near, question, label) > MT_CHANGE_NEAREST) {
            return label;
        }
    }
    return labels_of(change);
}

/* Is the use on known ground? Keeps what distance is usual. */
MT_COLD static int is_known(const mt_change *change, const neighbours *near)
{
    mt_change_state *state = change->state;
    float mean = 0.0f;
    for (uint32_t i = 0; i < near->count; ++i) {
        mean += near->distance[i] / (float)MT_CHANGE_NEAREST;
    }
    if (near->count < MT_CHANGE_NEAREST || !mt_is_finite(mean)) {
        return 0;
    }
    if (!(state->near > 0.0f)) {
        state->near = state->spread = mean;
        return 0;
    }
    const int known = mean <= state->near + MT_CHANGE_KNOWN * state->spread;
    const float off = mean - state->near < 3.0f * state->spread ? mean - state->near : 3.0f * state->spread;
    state->near += off / 16.0f;
    state->spread += (mt_absolute(off) - state->spread) / 16.0f;
    return known;
}

/* Whether this label was known before, and from elsewhere: then to give it here is a contradiction, and not something
 * new or a matter of taste at a border (step 2). */
MT_COLD static int is_contradiction(const mt_change *change, const mt_samples *samples, const neighbours *near,
                            const float *sample, uint32_t question, uint32_t older)
{
    const uint32_t label = label_of(change, samples, sample, question);
    uint32_t seen = 0;
    float mean = 0.0f;
    for (uint32_t i = 0; i < near->count; ++i) {
        mean += near->distance[i] / (float)MT_CHANGE_NEAREST;
    }
    for (uint32_t i = 0; i < older; ++i) {
        const float *other = mt_samples_at(samples, i);
        if (label_of(change, samples, other, question) == label) {
            ++seen;
            if (distance_squared(change, samples, other, sample) <= MT_CHANGE_OWN * mean) {
                return 0;
            }
        }
    }
    return seen >= MT_CHANGE_SEEN;
}

/// Evidence ///

MT_COLD static void clear(mt_change_class *class_)
{
    MT_ZERO(class_, sizeof *class_);
}

/* log likelihood of a label by what the neighbours say, part of the uses being careless (step 3) */
MT_COLD static float log_usual(const mt_change *change, uint32_t votes)
{
    const float labels = (float)labels_of(change), state_wrong = change->state->wrong;
    const float wrong = state_wrong > MT_CHANGE_LEAST_WRONG ? state_wrong : MT_CHANGE_LEAST_WRONG;
    const float share = ((float)votes + MT_CHANGE_PRIOR) / ((float)MT_CHANGE_NEAREST + MT_CHANGE_PRIOR * labels);
    return mt_log((1.0f - wrong) * share + wrong / labels);
}

/* One use that used to mean `usual`: a cumulative sum that looks out for one other meaning (step 4). */
MT_COLD static void weigh(const mt_change *change, mt_change_class *class_, uint32_t usual, uint32_t label, uint32_t votes)
{
    const float others = (float)labels_of(change) - 1.0f, changed = 1.0f - MT_CHANGE_AS_BEFORE;
    const float expected = log_usual(change, votes);
    if (label == usual) {
        class_->evidence += mt_log(MT_CHANGE_AS_BEFORE) - expected;
    } else {
        const float first = mt_log(changed / others) - expected;
        if (class_->run > 0) {
            const float share = others < 2.0f               ? changed
                                : label == class_->toward ? changed * (1.0f - MT_CHANGE_OTHERWISE)
                                                          : changed * MT_CHANGE_OTHERWISE / (others - 1.0f);
            class_->evidence += mt_log(share) - expected;
        }
        if (class_->run == 0 || first >= class_->evidence) {
            class_->evidence = first;
            class_->toward = (uint16_t)label;
            class_->run = 1;
        }
    }
    if (!(class_->evidence > 0.0f)) {
        clear(class_);
    }
    change->state->wrong += ((label != usual ? 1.0f : 0.0f) - change->state->wrong) / MT_CHANGE_SLOW;
}

/* the longest run with evidence, after one more use; one that is longer than `most` has come to nothing */
MT_COLD static uint32_t longest_run(const mt_change *change, uint32_t more, uint32_t most)
{
    uint32_t longest = 0;
    for (uint32_t i = 0; i < change->kinds; ++i) {
        mt_change_class *class_ = change->classes + i;
        if (class_->run > 0) {
            class_->run = (uint16_t)(class_->run + more);
        }
        if (class_->run > most) {
            clear(class_);
        }
        longest = class_->run > longest ? class_->run : longest;
    }
    return longest;
}

MT_COLD static float all_evidence(const mt_change *change)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < change->kinds; ++i) {
        sum += change->classes[i].evidence;
    }
    return sum;
}

/* do the newest `run` samples all say the same, as when examples are shown class by class? */
MT_COLD static int is_block(const mt_change *change, const mt_samples *samples, uint32_t run)
{
    const uint32_t size = mt_samples_size(samples);
    const float *newest = mt_samples_at(samples, size - 1);
    for (uint32_t i = size - run; i < size - 1; ++i) {
        for (uint32_t q = 0; q < questions_of(change); ++q) {
            if (label_of(change, samples, mt_samples_at(samples, i), q) != label_of(change, samples, newest, q)) {
                return 0;
            }
        }
    }
    return 1;
}

/// Calls ///

MT_COLD uint32_t mt_change_observe(const mt_change *change, const mt_samples *samples, float evidence)
{
    const uint32_t size = mt_samples_size(samples), half = size / 2u, ring = samples->state->count;
    const uint32_t kept = half < ring ? half : ring;
    const uint32_t most = kept < (uint32_t)MT_CHANGE_RUN ? kept : (uint32_t)MT_CHANGE_RUN;
    const uint32_t run = longest_run(change, 1, most);
    if (size == 0) {
        return 0;
    }
    /* what the run has said is no witness against itself */
    const uint32_t older = size - (run > 0 ? run : 1u);
    const float *sample = mt_samples_at(samples, size - 1);
    const neighbours near = nearest_to(change, samples, sample, older);
    if (!is_known(change, &near)) {
        return 0;
    }
    int contradicts = 0;
    for (uint32_t q = 0; q < questions_of(change); ++q) {
        const uint32_t label = label_of(change, samples, sample, q), usual = usual_label(change, samples, &near, q);
        if (usual == labels_of(change)) {
            continue;
        }
        if (label != usual) {
            if (!is_contradiction(change, samples, &near, sample, q, older)) {
                continue;
            }
            contradicts = 1;
        }
        weigh(change, class_of(change, q, usual), usual, label, votes_for(change, samples, &near, q, label));
    }
    if (!contradicts) {
        return 0;
    }
    const uint32_t longest = longest_run(change, 0, most);
    const float enough = change->kinds > 2 && !change->binary ? MT_CHANGE_EVIDENCE : MT_CHANGE_EVIDENCE_BINARY;
    const float needed = enough * evidence * (is_block(change, samples, longest) ? MT_CHANGE_BLOCK : 1.0f);
    return longest > 1 && all_evidence(change) > needed ? longest : 0u;
}

/* The uses of a run that contradict what `label` meant: bit i of the result is the use i of the run. */
MT_COLD static uint64_t causes_of(const mt_change *change, const mt_samples *samples, uint32_t question, uint32_t label,
                          const uint16_t *said, uint32_t older, uint32_t run)
{
    uint64_t causes = 0;
    for (uint32_t i = 0; i < run; ++i) {
        if (said[i] == label && label_of(change, samples, mt_samples_at(samples, older + i), question) != label) {
            causes |= (uint64_t)1 << i;
        }
    }
    return causes;
}

/* Remove what is affected of the older samples that say `label`; returns how many (step 6). */
MT_COLD static uint32_t remove_affected(const mt_change *change, const mt_samples *samples, uint32_t question, uint32_t label,
                                uint64_t causes, uint32_t older, uint32_t run, uint16_t before[2])
{
    float apart = 0.0f, sum = 0.0f;
    uint32_t pairs = 0, removed = 0;
    for (uint32_t i = 0; i < run; ++i) {
        if ((causes >> i & 1u) == 0) {
            continue;
        }
        const float *cause = mt_samples_at(samples, older + i);
        for (uint32_t j = 0; j < older + i; ++j) {
            const float *other = mt_samples_at(samples, j);
            const int is_cause = j >= older && (causes >> (j - older) & 1u) != 0;
            if (is_cause || (j < older && label_of(change, samples, other, question) == label)) {
                const float distance = distance_squared(change, samples, cause, other);
                apart = is_cause && distance > apart ? distance : apart;
                sum += is_cause ? 0.0f : distance;
                pairs += !is_cause;
            }
        }
    }
    /* as far apart as what they contradict: then all of that has changed, else what is near them */
    const int everywhere = pairs > 0 && apart > 0.5f * sum / (float)pairs;
    const float reach = MT_CHANGE_REACH * (change->state->near + MT_CHANGE_KNOWN * change->state->spread);
    for (uint32_t j = older; j-- > 0;) {
        const float *other = mt_samples_at(samples, j);
        int affected = everywhere;
        if (label_of(change, samples, other, question) != label) {
            continue;
        }
        for (uint32_t i = 0; i < run && !affected; ++i) {
            const float *cause = mt_samples_at(samples, older - removed + i);
            affected = (causes >> i & 1u) != 0 && distance_squared(change, samples, cause, other) < reach;
        }
        if (affected) {
            const uint32_t ago = mt_samples_size(samples) - 1u - j;
            before[0] = (uint16_t)(before[0] - (ago <= before[0]));
            before[1] = (uint16_t)(before[1] - (ago <= before[1]));
            mt_samples_remove(samples, j);
            ++removed;
        }
    }
    return removed;
}

MT_COLD uint32_t mt_change_forget(const mt_change *change, const mt_samples *samples, uint32_t run, uint16_t before[2])
{
    const uint32_t size = mt_samples_size(samples), longest = run < (uint32_t)MT_CHANGE_RUN ? run : (uint32_t)MT_CHANGE_RUN;
    const uint32_t newest = longest < size ? longest : size;
    uint16_t said[MT_CHANGE_RUN];
    uint32_t removed = 0;
    for (uint32_t q = 0; q < questions_of(change); ++q) {
        const uint32_t older = size - newest - removed;
        for (uint32_t i = 0; i < newest; ++i) {
            const neighbours near = nearest_to(change, samples, mt_samples_at(samples, older + i), older);
            said[i] = (uint16_t)usual_label(change, samples, &near, q);
        }
        for (uint32_t label = 0, so_far = removed; label < labels_of(change); ++label) {
            if (class_of(change, q, label)->evidence > 1.0f) {
                const uint32_t left = older - (removed - so_far);
                const uint64_t causes = causes_of(change, samples, q, label, said, left, newest);
                removed += remove_affected(change, samples, q, label, causes, left, newest, before);
            }
        }
    }
    for (uint32_t i = 0; i < change->kinds; ++i) {
        clear(change->classes + i);
    }
    ++change->state->changes;
    return removed;
}
