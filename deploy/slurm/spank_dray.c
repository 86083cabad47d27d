/*
 * --image, --volume, --module and --enter for srun, sbatch and salloc.
 *
 * Where a job is submitted, `dray hook submit` is asked once, as the user; what it prints becomes
 * the job's environment, and that of its prologs and epilogs (with SPANK_ before the names). On a
 * node, the plugin reads what the prolog left about the job's images: a job that has none ends
 * there with the reason on its stderr, and the node stays as it is.
 *
 * Nothing here runs with more rights than Slurm's own part around it: no shell, no setuid program,
 * and as root only one small file is read, which the prolog wrote. Entering is in spank_enter.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>
#include <slurm/spank.h>

#include "spank_enter.h"

#if SLURM_VERSION_NUMBER < SLURM_VERSION_NUM(21, 8, 0)
#error "Slurm 21.08 or newer is needed"
#endif

SPANK_PLUGIN(dray, 1)

enum { IMAGE, VOLUME, MODULE, OPTIONS };
enum { MAX_VALUE = 4096, MAX_OUTPUT = 65536, MAX_WORD = 1024, MAX_PASSED = 24, MAX_PATH = 4096 };

extern char **environ;

/* What plugstack.conf says. */
static const char *dray = "/usr/bin/dray";
static const char *state = "/run/dray/slurm";
static long timeout_seconds = 60;
static char *passed[MAX_PASSED]; /* to `dray hook submit`, as they stand */
static int passed_count;

static char *wanted[OPTIONS];      /* what the user asks for */
static char reason[MAX_WORD] = ""; /* on a node: why there is no image */

/* What each option decides about the environment of a job. */
static const struct {
    const char *name;
    int option;
} variables[] = {
    {"DRAY_IMAGE", IMAGE},  {"DRAY_IMAGE_ID", IMAGE}, {"DRAY_IMAGES", IMAGE},
    {"DRAY_PULLS", IMAGE},  {"DRAY_SYSTEM", IMAGE},   {"DRAY_VOLUMES", VOLUME},
    {"DRAY_VOLUME_PATHS", VOLUME}, {"DRAY_MODULES", MODULE},
};
#define VARIABLES (sizeof variables / sizeof *variables)

static int option_given(int option, const char *value, int remote)
{
    if (remote)
        return ESPANK_SUCCESS; /* it has been seen to where the job was submitted */
    if (!value || !*value || strlen(value) >= MAX_VALUE) {
        slurm_error("dray: an option is empty, or longer than %d characters", MAX_VALUE - 1);
        return ESPANK_BAD_ARG;
    }
    free(wanted[option]);
    wanted[option] = strdup(value);
    return wanted[option] ? ESPANK_SUCCESS : ESPANK_ERROR;
}

static struct spank_option options[] = {
    {"image", "REF[,REF]", "run in this image, such as ubuntu:24.04 (dray images lists them)", 1,
     IMAGE, option_given},
    {"volume", "FROM:TO[;...]", "have a directory of the host in the image", 1, VOLUME,
     option_given},
    {"module", "NAME[,NAME]", "have what the site offers for images", 1, MODULE, option_given},
    {"enter", "yes|no", "begin inside the image: no command before a step's own is needed", 2,
     OPTIONS, dray_enter_option},
    SPANK_OPTIONS_TABLE_END};

static int configure(int count, char **words)
{
    for (int i = 0; i < count; i++) {
        char *end = "";
        if (!strncmp(words[i], "dray=/", 6))
            dray = words[i] + 5;
        else if (!strncmp(words[i], "state=/", 7))
            state = words[i] + 6;
        else if (!strncmp(words[i], "timeout=", 8))
            timeout_seconds = strtol(words[i] + 8, &end, 10);
        else if (!strncmp(words[i], "--", 2) && passed_count < MAX_PASSED)
            passed[passed_count++] = words[i];
        else if (!dray_enter_configure(words[i]))
            end = words[i];
        if (*end || timeout_seconds <= 0 || timeout_seconds > 86400) {
            slurm_error("dray: plugstack.conf: '%s' cannot be understood", words[i]);
            return -1;
        }
    }
    return 0;
}

int slurm_spank_init(spank_t spank, int count, char **words)
{
    spank_context_t context = spank_context();

    if (context != S_CTX_LOCAL && context != S_CTX_ALLOCATOR && context != S_CTX_REMOTE)
        return 0;
    for (int i = 0; options[i].name; i++)
        if (spank_option_register(spank, &options[i]) != ESPANK_SUCCESS)
            slurm_error("dray: --%s belongs to another plugin already", options[i].name);
    /* On a node nothing of ours may keep a step from starting. */
    return configure(count, words) && context != S_CTX_REMOTE ? -1 : 0;
}

/* ---- where a job is submitted --------------------------------------------------------------- */

static long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000L + now.tv_nsec / 1000000L;
}

static void become_submit(char **argv, int output)
{
    sigset_t none;
    int nothing = open("/dev/null", O_RDONLY);

    prctl(PR_SET_PDEATHSIG, SIGTERM); /* whoever submits may be killed while this waits */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(nothing, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0)
        execve(argv[0], argv, environ);
    dprintf(STDERR_FILENO, "dray: cannot start %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* All that it prints, up to its end: the number of bytes, or -1 when time or room is over. */
static ssize_t read_all(int from, char *into, size_t room, long end)
{
    size_t had = 0;

    for (;;) {
        struct pollfd wait = {.fd = from, .events = POLLIN};
        long left = end - now_ms();
        ssize_t got;

        if (left <= 0 || had == room - 1)
            return -1;
        if (poll(&wait, 1, (int)left) <= 0)
            continue; /* a signal, or the time */
        got = read(from, into + had, room - 1 - had);
        if (got < 0 && errno != EINTR)
            return -1;
        if (got == 0) {
            into[had] = '\0';
            return (ssize_t)had;
        }
        had += got > 0 ? (size_t)got : 0;
    }
}

/* Its exit status; -1 where it has to be killed. */
static int wait_for(pid_t child, long end)
{
    const struct timespec moment = {.tv_nsec = 10000000};
    int status = -1;
    pid_t ended;

    while ((ended = waitpid(child, &status, WNOHANG)) == 0 && now_ms() < end)
        nanosleep(&moment, NULL);
    if (ended == 0) {
        kill(child, SIGKILL);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        return -1;
    }
    return ended == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Ask `dray hook submit`. It tells the user itself what is wrong, on our stderr. */
static int ask(char *output, size_t room)
{
    char *argv[MAX_PASSED + 2 * OPTIONS + 4] = {(char *)dray, "hook", "submit"};
    long end = now_ms() + timeout_seconds * 1000L;
    int words = 3, pipes[2], status;
    ssize_t length;
    pid_t child;

    for (int i = 0; i < passed_count; i++)
        argv[words++] = passed[i];
    for (int i = 0; i < OPTIONS; i++) {
        char *word = NULL;
        if (!wanted[i])
            continue;
        if (asprintf(&word, "--%s=%s", options[i].name, wanted[i]) < 0)
            return -1;
        argv[words++] = word; /* of a process that is about to end or to wait: not given back */
    }
    if (pipe2(pipes, O_CLOEXEC) < 0)
        return -1;
    child = fork();
    if (child == 0)
        become_submit(argv, pipes[1]);
    close(pipes[1]);
    if (child < 0) {
        close(pipes[0]);
        return -1;
    }
    length = read_all(pipes[0], output, room, end);
    close(pipes[0]);
    status = wait_for(child, length < 0 ? 0 : end);
    if (length < 0)
        slurm_error("dray: %s did not come to an end within %ld s", dray, timeout_seconds);
    return length < 0 ? -1 : status;
}

static bool known(const char *name)
{
    for (size_t i = 0; i < VARIABLES; i++)
        if (!strcmp(variables[i].name, name))
            return true;
    return false;
}

/* One name=value each line; only names that are ours. */
static int take(spank_t spank, char *output, bool new_job)
{
    char *rest = NULL;

    for (char *line = strtok_r(output, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *value = strchr(line, '=');
        if (value)
            *value++ = '\0';
        if (!value || !known(line)) {
            slurm_error("dray: %s printed what is no variable of ours", dray);
            return -1;
        }
        if (setenv(line, value, 1) < 0)
            return -1;
        if (new_job && spank_job_control_setenv(spank, line, value, 1) != ESPANK_SUCCESS)
            return -1;
    }
    return 0;
}

/* A step may ask for what its job has already: Slurm hands the job's options to its steps. */
static bool inherited(void)
{
    static const char *const names[OPTIONS] = {"DRAY_IMAGE", "DRAY_VOLUMES", "DRAY_MODULES"};

    for (int i = 0; i < OPTIONS; i++) {
        const char *value = getenv(names[i]);
        if (wanted[i] && (!value || strcmp(value, wanted[i])))
            return false;
    }
    return true;
}

static int submit(spank_t spank)
{
    static char output[MAX_OUTPUT];
    bool new_job = spank_context() == S_CTX_ALLOCATOR || !getenv("SLURM_JOB_ID");
    bool asked = wanted[IMAGE] || wanted[VOLUME] || wanted[MODULE];
    enum dray_enter enter = dray_enter_wanted();
    int failed = 0;

    if (enter == DRAY_ENTER_ASKED && !wanted[IMAGE] && (new_job || !getenv("DRAY_IMAGE_ID"))) {
        slurm_error("dray: --enter: there is no image to enter; add --image");
        return -1;
    }
    if (!new_job && inherited())
        return 0;
    if (!new_job && enter && (wanted[VOLUME] || wanted[MODULE])) {
        slurm_error("dray: a step enters what its job has: give --volume and --module to the job, "
                    "or start the step with --enter=no and `dray run`");
        return -1;
    }
    if (asked)
        failed = ask(output, sizeof output);
    for (size_t i = 0; i < VARIABLES; i++) /* a new job has nothing of the one that submits it */
        if (new_job || wanted[variables[i].option])
            unsetenv(variables[i].name);
    if (asked && !failed)
        failed = take(spank, output, new_job);
    for (int i = 0; i < OPTIONS; i++) { /* the next component of a heterogeneous job has its own */
        free(wanted[i]);
        wanted[i] = NULL;
    }
    return failed ? -1 : 0;
}

/* ---- on a node ------------------------------------------------------------------------------ */

/* Slurm tells a step neither its node's name nor, always, the right one in SLURMD_NODENAME. */
static bool node_name(spank_t spank, char *name, size_t room)
{
    char list[MAX_VALUE] = "";
    struct hostlist *hosts;
    uint32_t number = 0;
    char *host = NULL;

    if (spank_get_item(spank, S_JOB_NODEID, &number) != ESPANK_SUCCESS)
        return false;
    if (spank_getenv(spank, "SLURM_STEP_NODELIST", list, sizeof list) != ESPANK_SUCCESS &&
        spank_getenv(spank, "SLURM_JOB_NODELIST", list, sizeof list) != ESPANK_SUCCESS)
        return false;
    hosts = slurm_hostlist_create(list);
    if (!hosts)
        return false;
    for (uint32_t i = 0; i <= number; i++) {
        free(host);
        host = slurm_hostlist_shift(hosts);
    }
    if (host)
        snprintf(name, room, "%s", host);
    slurm_hostlist_destroy(hosts);
    free(host);
    return *name != '\0';
}

bool dray_place(spank_t spank, const char *pattern, char *path, size_t room)
{
    const char *mark = strstr(pattern, "%n");
    char node[256] = "";
    int length;

    if (mark && !node_name(spank, node, sizeof node))
        return false;
    length = mark ? snprintf(path, room, "%.*s%s%s", (int)(mark - pattern), pattern, node, mark + 2)
                  : snprintf(path, room, "%s", pattern);
    return length > 0 && (size_t)length < room;
}

static bool verdict_path(spank_t spank, char *path, size_t room)
{
    char directory[MAX_PATH - 32];
    uint32_t job = 0;

    if (spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS ||
        !dray_place(spank, state, directory, sizeof directory))
        return false;
    return snprintf(path, room, "%s/%u.images", directory, job) < (int)room;
}

/* Without word from a prolog the step goes on: `dray run` asks the agent itself. */
static void hear(spank_t spank)
{
    static char text[MAX_OUTPUT];
    char path[MAX_PATH], *rest = NULL, *line;
    uint32_t step = 0;
    ssize_t length;
    int file;

    if (spank_get_item(spank, S_JOB_STEPID, &step) != ESPANK_SUCCESS || step == SLURM_EXTERN_CONT)
        return;
    if (!verdict_path(spank, path, sizeof path))
        return;
    file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0)
        return;
    length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0 || !(line = strtok_r(text, "\n", &rest)))
        return;
    if (!strcmp(line, "failed")) {
        line = strtok_r(NULL, "\n", &rest);
        snprintf(reason, sizeof reason, "%s", line ? line : "the job's image is not there");
        return;
    }
    while ((line = strtok_r(NULL, "\n", &rest))) { /* with --export=NONE, or pulled meanwhile */
        char *value = strchr(line, '=');
        if (!strncmp(line, "inside ", 7)) {
            dray_enter_known(line + 7);
            continue;
        }
        if (value)
            *value++ = '\0';
        if (value && known(line))
            spank_setenv(spank, line, value, 0);
    }
}

int slurm_spank_init_post_opt(spank_t spank, int count, char **words)
{
    spank_context_t context = spank_context();

    (void)count, (void)words;
    if (context == S_CTX_LOCAL || context == S_CTX_ALLOCATOR)
        return submit(spank);
    if (context == S_CTX_REMOTE)
        hear(spank);
    return 0;
}

int slurm_spank_task_init_privileged(spank_t spank, int count, char **words)
{
    (void)count, (void)words;
    if (!*reason)
        dray_enter_prepare(spank, reason, sizeof reason);
    return 0;
}

/* As the user, in each task, with its stderr: the first place where words reach somebody. */
int slurm_spank_task_init(spank_t spank, int count, char **words)
{
    int task = 0;

    (void)count, (void)words;
    if (!*reason)
        dray_enter_task(spank, reason, sizeof reason);
    if (!*reason)
        return 0;
    spank_get_item(spank, S_TASK_ID, &task);
    if (task == 0) /* of each node */
        dprintf(STDERR_FILENO, "dray: %s\n", reason);
    return -1;
}
