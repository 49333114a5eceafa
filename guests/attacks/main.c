/*
 * attacks: `only=NAME` tries one way out, `role=neighbour` is the one beside it.
 */
#include "attacks.h"

#include "start.h"
#include "string.h"

const char guest_name[] = "attacks";

const struct start_info *start_of_day;
word neighbours_mfn, neighbours_root;
domid_t neighbour;

#define ENTER(name) &name,
static const struct attack *const attacks[] = { ATTACKS(ENTER) };

static const struct attack *chosen(const struct start_info *si)
{
    for (size_t i = 0; i < ARRAY_SIZE(attacks); i++)
        if (option_is(si, "only", attacks[i]->name))
            return attacks[i];
    return NULL;
}

static NORETURN void list_attacks(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(attacks); i++)
        print("%s\n", attacks[i]->name);
    panic("only=NAME chooses one of the %d above", (int)ARRAY_SIZE(attacks));
}

static char came_of_it[96];

void outcome(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vformat(came_of_it, sizeof(came_of_it), fmt, args);
    va_end(args);
}

void escaped(const char *what)
{
    outcome("ESCAPED: %s", what);
}

void guest_main(const struct start_info *si)
{
    const struct attack *attack = chosen(si);

    if (option_is(si, "role", "neighbour"))
        be_the_neighbour();
    if (!attack)
        list_attacks();
    start_of_day = si;
    neighbours_root = (word)option_number(si, "root", 0);
    neighbours_mfn = (word)option_number(si, "frame", 0);
    neighbour = (domid_t)option_number(si, "domid", 0);
    print("attacks: %s, %s\n", WIDTH_NAME, attack->name);
    attack->run();
    check_text(attack->name, "no way out", attack->stopped, came_of_it);
    report_and_exit();
}
