/* migration_probe.c: mt_migration_take on an old payload in plain memory, of which every other byte is out of bounds. */
#include <stddef.h>

#include "mt_learner.h"
#include "mt_migration.h"

typedef struct old_memory {
    const uint8_t *payload;
    uint32_t bytes, at; /* of the payload in a storage */
    uint32_t outside;   /* reads of anything else */
    uint32_t reads, fails_at; /* the read of this number fails */
} old_memory;

static int old_read(void *context, uint32_t address, void *data, uint32_t bytes)
{
    old_memory *old = (old_memory *)context;
    if (++old->reads == old->fails_at) {
        return -1;
    }
    if (address < old->at || address - old->at > old->bytes || bytes > old->bytes - (address - old->at)) {
        ++old->outside;
        return -1;
    }
    MT_COPY(data, old->payload + (address - old->at), bytes);
    return 0;
}

int probe_take(old_memory *memory, void *payload, uint32_t bytes, uint32_t floats)
{
    mt_port port;
    mt_old_state old;
    MT_ZERO(&port, sizeof port);
    port.context = memory;
    port.read = old_read;
    old.port = &port;
    old.address = memory->at;
    old.identity = 0x0DDBA11Du;
    old.bytes = memory->bytes;
    return mt_migration_take(&old, payload, bytes, floats);
}

/* Where microtune inspect looks; the Python that reads states is compared with these. */
void probe_layout(uint32_t layout[14])
{
    const uint32_t found[14] = {
        sizeof(mt_state), offsetof(mt_state, metrics), sizeof(mt_metrics), offsetof(mt_metrics, mean_error),
        offsetof(mt_state, people_at), offsetof(mt_state, structure), offsetof(mt_state, profile),
        offsetof(mt_state, teaching), offsetof(mt_person, uses), offsetof(mt_person, hits), offsetof(mt_person, recent),
        offsetof(mt_person, confidence), MT_STATE_VERSION, MT_RECOGNISE};
    MT_COPY(layout, found, sizeof found);
}
