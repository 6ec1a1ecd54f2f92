/* mt_gradient_change.c: see mt_gradient.h. */
#include "mt_gradient.h"

#include "mt_change.h"

MT_COLD uint32_t mt_gradient_change(const mt_learner *learner)
{
    const uint32_t run = mt_change_observe(&learner->change, &learner->samples, mt_learner_evidence(learner));
    if (run == 0) {
        return 0;
    }
    /* what is gone is neither undone again nor judged by */
    mt_person *person = learner->person;
    const uint16_t others = (uint16_t)(learner->samples.state->count - 1u);
    uint16_t before[2];
    before[0] = person->undo < others ? person->undo : others;
    before[1] = person->since < others ? person->since : others;
    mt_change_forget(&learner->change, &learner->samples, run, before);
    person->undo = before[0];
    person->since = before[1];
    if (learner->importance != NULL) { /* it held on to what is over */
        MT_ZERO(learner->importance, learner->model->floats * sizeof *learner->importance);
    }
    return run;
}
