/*
 * start COUNT UID INSIDE COMMAND...: so many processes become the command at the same moment, as
 * ranks do. INSIDE is a pinned inside that they enter themselves, as the SPANK plugin does, or -.
 * Prints: seconds until all have ended, CPU seconds, the most memory of one in KiB, how many failed.
 */
#define _GNU_SOURCE
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../deploy/enter/dray_inside.h"

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void become(uid_t uid)
{
    if (setgroups(0, NULL) || setgid(uid) || setuid(uid))
        _exit(124);
}

static void enter(const char *pinned, uid_t uid)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];
    struct dray_inside inside;

    if (dray_read(&inside, pinned, true) || prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
        _exit(124);
    become(uid);
    syscall(SYS_capget, &header, sets);
    sets[0].effective = sets[0].permitted;
    sets[1].effective = sets[1].permitted;
    syscall(SYS_capset, &header, sets);
    if (dray_join(&inside) || dray_environment(&inside, NULL, 0) || dray_directory(&inside, NULL, "/"))
        _exit(124);
}

int main(int argc, char **argv)
{
    int count = argc > 4 ? atoi(argv[1]) : 0, gate[2], status, failed = 0;
    uid_t uid = count ? (uid_t)atoi(argv[2]) : 0;
    struct rusage used;
    double began, cpu = 0;
    long memory = 0;
    char byte;

    if (!count || pipe(gate))
        return 2;
    for (int i = 0; i < count; i++)
        if (fork() == 0) {
            close(gate[1]);
            if (read(gate[0], &byte, 1) != 0) /* until the parent closes its end */
                _exit(124);
            close(gate[0]);
            if (strcmp(argv[3], "-"))
                enter(argv[3], uid);
            else
                become(uid);
            execv(argv[4], argv + 4);
            _exit(124);
        }
    close(gate[0]);
    began = now();
    close(gate[1]);
    while (wait4(-1, &status, 0, &used) > 0) {
        failed += status != 0;
        cpu += (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
        memory = used.ru_maxrss > memory ? used.ru_maxrss : memory;
    }
    printf("%f %f %ld %d\n", now() - began, cpu, memory, failed);
    return 0;
}
