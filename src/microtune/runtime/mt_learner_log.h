/* mt_learner_log.h: what the learner tells the metrics log. */
#ifndef MT_LEARNER_LOG_H
#define MT_LEARNER_LOG_H

#include "mt_learner.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Append a record if one of this kind is due. A storage that fails costs the record and nothing else. */
void mt_learner_log(const mt_learner *learner, const mt_log_settings *settings, mt_log_kind kind, uint32_t detail);

#ifdef __cplusplus
}
#endif

#endif
