const char guest_name[] = "bench";
#include "console.h"
#include "report.h"
#include "start.h"
void guest_main(const struct start_info *si)
{
    print("bench %s %s %d\n", si->magic, WIDTH_NAME, 42);
    report_and_exit();
}
