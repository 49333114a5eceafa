/* From _start to the guest's own code, and the command line. */
#include "start.h"

#include "console.h"
#include "events.h"
#include "mm.h"
#include "report.h"
#include "string.h"

NORETURN void kit_start(const struct start_info *si);

/* The console first, so that what fails after it can be heard. */
void kit_start(const struct start_info *si)
{
    mm_init(si);
    console_init(si);
    events_init(si->shared_info);
    traps_init();
    guest_main(si);
    power_off();
}

const char *option(const struct start_info *si, const char *key)
{
    const char *at = si->cmd_line;
    size_t length = strlen(key);

    while (*at) {
        if (starts_with(at, key) && at[length] == '=')
            return at + length + 1;
        while (*at && *at != ' ')
            at++;
        while (*at == ' ')
            at++;
    }
    return NULL;
}

u64 option_number(const struct start_info *si, const char *key, u64 fallback)
{
    const char *at = option(si, key);
    u64 value = 0;

    if (!at)
        return fallback;
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (u64)(*at - '0');
    return value;
}

bool option_is(const struct start_info *si, const char *key, const char *value)
{
    const char *at = option(si, key);

    return at && starts_with(at, value) && (at[strlen(value)] == ' ' || !at[strlen(value)]);
}

void check_only_by_option(const struct start_info *si)
{
    static char prefix[32];
    const char *only = option(si, "only");
    size_t length = 0;

    for (; only && only[length] && only[length] != ' ' && length + 1 < sizeof(prefix); length++)
        prefix[length] = only[length];
    check_only(prefix);
}
