/*
 * As root, a task to be opens the mount namespace that the node's agent has pinned for the job, and
 * sees to it that its capabilities are still permitted when Slurm has made it the user's. Only then
 * it goes inside, and gives up all of them for good: nothing of Slurm ever runs as root among files
 * of an image, and nobody but root can trace or look into the task meanwhile.
 *
 * The verdict of a prolog is root's file, and yet not trusted with a path, for what it says comes
 * from afar: only the last word counts, which must begin with the job's number, below the directory
 * that plugstack.conf names.
 */
#define _GNU_SOURCE
#include "spank_enter.h"

#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>

#include "../enter/dray_inside.h"

enum { MAX_IMAGES = 64, MAX_VARIABLE = 128 * 1024 };

extern char **environ;

static const char *insides = DRAY_INSIDES;
static bool always;                            /* as plugstack.conf says */
static enum { UNSAID, YES, NO } said = UNSAID; /* by the user */

static struct {
    const char *image, *name;
} known[MAX_IMAGES];
static int known_count;

static struct dray_inside inside;
static bool is_ready;

bool dray_enter_configure(const char *word)
{
    if (!strncmp(word, "insides=/", 9))
        insides = word + 8;
    else if (!strcmp(word, "enter=always") || !strcmp(word, "enter=asked"))
        always = !strcmp(word, "enter=always");
    else
        return false;
    return true;
}

int dray_enter_option(int option, const char *value, int remote)
{
    (void)option, (void)remote; /* a node's part hears of it in just this way */
    /* Without a value, nodes are handed an empty one, and a job's steps what printf makes of none. */
    if (!value || !*value || !strcmp(value, "(null)") || !strcmp(value, "yes"))
        said = YES;
    else if (!strcmp(value, "no"))
        said = NO;
    else {
        slurm_error("dray: --enter=%.100s: write yes or no", value);
        return ESPANK_BAD_ARG;
    }
    return ESPANK_SUCCESS;
}

enum dray_enter dray_enter_wanted(void)
{
    enum dray_enter wanted = said == YES               ? DRAY_ENTER_ASKED
                             : always && said == UNSAID ? DRAY_ENTER_USUAL
                                                        : DRAY_ENTER_NOT;

    said = UNSAID;
    return wanted;
}

void dray_enter_known(char *line)
{
    char *path = strchr(line, ' ');

    if (!path || known_count == MAX_IMAGES)
        return;
    *path++ = '\0';
    known[known_count].image = line;
    known[known_count++].name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
}

/* Neither what keeps an allocation's processes together, nor the script that starts steps. */
static bool is_for(spank_t spank)
{
    uint32_t step = 0;

    if (spank_get_item(spank, S_JOB_STEPID, &step) != ESPANK_SUCCESS)
        return false;
    if (said == NO || step == SLURM_EXTERN_CONT || step == SLURM_BATCH_SCRIPT)
        return false;
    return said == YES || (always && step != SLURM_INTERACTIVE_STEP);
}

static bool find(spank_t spank, const char *image, char *path, size_t room)
{
    char directory[PATH_MAX], begin[32];
    uint32_t job = 0;

    if (spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS ||
        !dray_place(spank, insides, directory, sizeof directory))
        return false;
    snprintf(begin, sizeof begin, "%u.", job);
    for (int i = 0; i < known_count; i++)
        if (!strcmp(known[i].image, image) && !strncmp(known[i].name, begin, strlen(begin)))
            return snprintf(path, room, "%s/%s", directory, known[i].name) < (int)room;
    return false;
}

void dray_enter_prepare(spank_t spank, char *reason, size_t room)
{
    char image[256] = "", path[PATH_MAX];

    if (!is_for(spank))
        return;
    if (spank_getenv(spank, "DRAY_IMAGE_ID", image, sizeof image) != ESPANK_SUCCESS || !*image) {
        if (said == YES)
            snprintf(reason, room, "--enter: the job has no image; submit it with --image");
        return;
    }
    if (!find(spank, image, path, sizeof path))
        snprintf(reason, room,
                 "--enter: the image %.16s was not prepared on this node; start the step with "
                 "--enter=no and `dray run`, or submit the job anew",
                 image);
    else if (dray_read(&inside, path, true))
        snprintf(reason, room, "--enter: %s", inside.why);
    else if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        snprintf(reason, room, "--enter: this node's Slurm may not enter images");
    else
        is_ready = true;
}

/* To use what was kept for this moment, and no exec would leave; or to have none. */
static void take_privileges(bool kept)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {0};

    if (kept && syscall(SYS_capget, &header, sets) == 0)
        for (int half = 0; half < 2; half++)
            sets[half].effective = sets[half].permitted;
    syscall(SYS_capset, &header, sets); /* without them, entering says so */
}

/* Slurm would tell each task that it cannot make the directory; where there is none, it takes /tmp. */
static void forget_missing_tmpdir(void)
{
    const char *place = getenv("TMPDIR");

    if (place && access(place, X_OK) < 0)
        unsetenv("TMPDIR");
}

static const char *value_in(char **env, const char *entry, size_t name)
{
    for (; *env; env++)
        if (!strncmp(*env, entry, name) && (*env)[name] == '=')
            return *env + name + 1;
    return NULL;
}

/* Have the task's environment be `after`, by the calls that Slurm has for it. */
static bool replace(spank_t spank, char **before, char **after)
{
    static char name[MAX_VARIABLE];
    bool done = true;

    for (int pass = 0; pass < 2; pass++) /* what is gone; what is new */
        for (char **entry = pass ? after : before; *entry; entry++) {
            size_t length = strcspn(*entry, "=");
            const char *old = value_in(before, *entry, length), *new;
            if (!(*entry)[length] || length >= sizeof name)
                continue;
            *stpncpy(name, *entry, length) = '\0';
            new = value_in(after, *entry, length);
            if (!pass && !new)
                spank_unsetenv(spank, name);
            else if (pass && (!old || strcmp(old, new)))
                done = spank_setenv(spank, name, new, 1) == ESPANK_SUCCESS && done;
        }
    return done;
}

/* Not given back: the process is about to become the task, or to end. */
static char **copy_of(char **env)
{
    size_t count = 0;
    char **copy;

    while (env[count])
        count++;
    copy = calloc(count + 1, sizeof *copy);
    for (size_t i = 0; copy && i < count; i++)
        if (!(copy[i] = strdup(env[i])))
            return NULL;
    return copy;
}

void dray_enter_task(spank_t spank, char *reason, size_t room)
{
    char **own, **task = NULL, **before, **after, here[PATH_MAX];
    bool done;

    if (!is_ready)
        return;
    if (!getcwd(here, sizeof here))
        *here = '\0';
    take_privileges(true);
    if (dray_join(&inside)) {
        take_privileges(false);
        snprintf(reason, room, "--enter: %s", inside.why);
        return;
    }
    if (spank_get_item(spank, S_JOB_ENV, &task) != ESPANK_SUCCESS || !(before = copy_of(task)) ||
        !(after = copy_of(task)) || !(own = copy_of(environ))) {
        snprintf(reason, room, "--enter: the task's environment cannot be had");
        return;
    }
    environ = after; /* setenv frees the array that it made before: ours is a copy from now on */
    done = !dray_environment(&inside, NULL, 0) && !dray_directory(&inside, NULL, here);
    forget_missing_tmpdir();
    after = environ;
    environ = own;
    if (!done)
        snprintf(reason, room, "--enter: %s", inside.why);
    else if (!replace(spank, before, after))
        snprintf(reason, room, "--enter: the environment that the image wants cannot be set");
}
