/* mt_learner_log.c: see mt_learner_log.h. */
#include "mt_learner_log.h"

MT_COLD static uint8_t ones(uint32_t bits)
{
    uint32_t count = 0;
    for (; bits != 0; bits &= bits - 1u) {
        ++count;
    }
    return (uint8_t)count;
}

MT_COLD void mt_learner_log(const mt_learner *learner, const mt_log_settings *settings, mt_log_kind kind, uint32_t detail)
{
    const mt_port *port = learner->port;
    if (port == NULL || port->size == 0 || port->log == 0) {
        return;
    }
    const mt_log_region log = mt_log_of(port);
    if (kind == MT_LOG_START) {
        (void)mt_log_open(&log, learner->records);
    }
    const mt_metrics *metrics = &learner->state->metrics;
    if (!mt_log_due(settings, learner->records, (uint32_t)kind, metrics->observations)) {
        return;
    }
    const mt_person *person = learner->person;
    mt_log_record record;
    MT_ZERO(&record, sizeof record);
    record.kind = (uint8_t)kind;
    record.detail = (uint8_t)detail;
    record.time = mt_learner_now(learner);
    record.uses = metrics->observations;
    record.profile = (uint8_t)(learner->set / learner->model->contexts);
    record.right = ones(person->hits);
    record.recent = (uint8_t)person->recent;
    record.confidence = mt_number_byte(person->confidence);
    const uint32_t error = mt_number_float_bits(metrics->mean_error);
    MT_COPY(&record.error, &error, sizeof error);
    record.taken = (uint16_t)metrics->accepted;
    record.dropped = (uint16_t)metrics->rolled_back;
    (void)mt_log_append(&log, learner->records, &record);
}
