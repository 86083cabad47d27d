/*
 * dray-enter: become a command inside the image of the job that this runs in.
 *
 * For ranks: two system calls lead where the node's agent has put everything together before. It
 * has the rights of whoever calls it and no others; no setuid bit, now or ever. It becomes the
 * command, so signals, terminal, limits and exit status are the command's own.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dray_inside.h"

enum { NOT_RUN = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127, WRONG_USAGE = 2 };

static const char usage[] =
    "usage: dray-enter [-w DIR] [-e NAME=VALUE]... [-E] [IMAGE_ID] -- COMMAND...\n"
    "  -w, --workdir DIR     work in this directory of the image\n"
    "  -e, --env NAME=VALUE  set a variable, after the image, before modules and site\n"
    "  -E, --entrypoint      put the image's entrypoint before the command; without a command,\n"
    "                        run what the image says\n"
    "Without IMAGE_ID it is DRAY_IMAGE_ID, as a job with --image has it.\n";

struct wish {
    const char *image, *workdir;
    char **set; /* of our arguments, those behind -e */
    int set_count;
    int entrypoint;
    char **command;
};

static void stop(int status, const char *why)
{
    dprintf(STDERR_FILENO, "dray-enter: %s\n", why);
    exit(status);
}

static struct wish understand(int count, char **words)
{
    struct wish wish = {.image = getenv("DRAY_IMAGE_ID"), .set = words};
    int at = 1;

    for (; at < count && words[at][0] == '-' && strcmp(words[at], "--"); at++) {
        const char *option = words[at];
        if (!strcmp(option, "-E") || !strcmp(option, "--entrypoint")) {
            wish.entrypoint = 1;
        } else if (!strcmp(option, "-h") || !strcmp(option, "--help")) {
            fputs(usage, stdout);
            exit(0);
        } else if (at + 1 == count) {
            stop(WRONG_USAGE, usage);
        } else if (!strcmp(option, "-w") || !strcmp(option, "--workdir")) {
            wish.workdir = words[++at];
        } else if (!strcmp(option, "-e") || !strcmp(option, "--env")) {
            char *word = words[++at], *value = strchr(word, '=');
            if (!value || value == word)
                stop(WRONG_USAGE, "-e: write NAME=VALUE");
            wish.set[wish.set_count++] = word; /* never further than we have read */
        } else {
            stop(WRONG_USAGE, usage);
        }
    }
    if (at < count && strcmp(words[at], "--"))
        wish.image = words[at++];
    if (at < count && strcmp(words[at++], "--"))
        stop(WRONG_USAGE, usage);
    wish.command = words + at;
    if (!*wish.command && !wish.entrypoint)
        stop(WRONG_USAGE, "write a command behind --, or -E for the image's own");
    if (wish.workdir && *wish.workdir != '/')
        stop(WRONG_USAGE, "-w: the directory must begin with '/'");
    return wish;
}

static void find(const char *image, char *path, size_t room)
{
    const char *insides = getenv("DRAY_INSIDES"), *job = getenv("SLURM_JOB_ID");
    int length;

    if (!job || !*job)
        job = getenv("DRAY_JOB_ID");
    if (!job || !*job || strchr(job, '/'))
        stop(NOT_RUN, "this is no job: there is neither SLURM_JOB_ID nor DRAY_JOB_ID");
    if (!image || !*image || strchr(image, '/'))
        stop(NOT_RUN, "no image is named, and DRAY_IMAGE_ID is not set: submit with --image");
    length = snprintf(path, room, "%s/%s@%s", insides && *insides ? insides : DRAY_INSIDES, job, image);
    if (length < 0 || (size_t)length >= room)
        stop(NOT_RUN, "the names of job and image are too long");
}

/* `srun --volume=` and `--module=` change a step's variables; Slurm keeps those of the submission,
 * with which the inside was put together. What is not in it must not seem to be. */
static void be_as_submitted(void)
{
    static const char *const names[][2] = {{"DRAY_VOLUMES", "SLURM_SPANK_DRAY_VOLUMES"},
                                           {"DRAY_MODULES", "SLURM_SPANK_DRAY_MODULES"}};

    if (!getenv("SLURM_SPANK_DRAY_IMAGE"))
        return; /* other schedulers, and steps that Slurm's plugin knows nothing of */
    for (size_t at = 0; at < sizeof names / sizeof *names; at++) {
        const char *now = getenv(names[at][0]), *then = getenv(names[at][1]);
        if (strcmp(now ? now : "", then ? then : ""))
            stop(NOT_RUN, "this step has volumes or modules of its own, and is to enter what was put "
                          "together for its job: call it by dray run or shifter, or submit it with them");
    }
}

/* A directory of the host that the caller has open would lead the command out of the image. Files,
 * pipes and sockets are what ranks are handed. */
static void leave_directories(void)
{
    DIR *all = opendir("/proc/self/fd");
    struct dirent *entry;
    struct stat found;

    while (all && (entry = readdir(all))) {
        int number = atoi(entry->d_name);
        if (number > STDERR_FILENO && fstat(number, &found) == 0 && S_ISDIR(found.st_mode))
            fcntl(number, F_SETFD, FD_CLOEXEC);
    }
    if (all)
        closedir(all);
}

/* Docker's rule: the entrypoint, then the user's words, or else the image's. */
static char **command_of(const struct wish *wish, const struct dray_inside *inside)
{
    size_t words = 1, at = 0;
    const char *word = NULL;
    char **command;

    for (char **given = wish->command; *given; given++)
        words++;
    if (wish->entrypoint)
        words += inside->entrypoint.length + inside->cmd.length; /* at most one each byte */
    command = calloc(words, sizeof *command);
    if (!command)
        stop(NOT_RUN, "there is no memory left");
    while (wish->entrypoint && (word = dray_next(&inside->entrypoint, word)))
        command[at++] = (char *)word;
    for (char **given = wish->command; *given; given++)
        command[at++] = *given;
    word = NULL;
    while (!*wish->command && (word = dray_next(&inside->cmd, word)))
        command[at++] = (char *)word;
    if (!at)
        stop(NOT_RUN, "the image does not say what to run: write a command behind --");
    return command;
}

/* What keeps a file that is there from being run, or 0 where there is none: the search goes on. */
static int why_not(const char *path, int problem)
{
    struct stat found;

    if (problem != ENOENT && problem != ENOTDIR)
        return problem;
    return lstat(path, &found) == 0 ? ENOENT : 0;
}

static void become(char **command)
{
    char path[PATH_MAX], *rest = strchr(*command, '/') ? NULL : getenv("PATH");
    int problem = 0, now;

    if (!rest) {
        execv(*command, command);
        problem = why_not(*command, errno);
    }
    while (rest) {
        size_t length = strcspn(rest, ":");
        if (snprintf(path, sizeof path, "%.*s/%s", length ? (int)length : 1, length ? rest : ".",
                     *command) < (int)sizeof path) {
            execv(path, command);
            now = why_not(path, errno);
            problem = problem ? problem : now;
        }
        rest = rest[length] ? rest + length + 1 : NULL;
    }
    dprintf(STDERR_FILENO, "dray-enter: %s: %s\n", *command,
            !problem            ? "there is no such command in the image"
            : problem == ENOENT ? "its interpreter or loader is not in the image"
                                : strerror(problem));
    exit(problem == E2BIG ? NOT_RUN : problem && problem != ENOENT ? NOT_EXECUTABLE : NOT_FOUND);
}

int main(int count, char **words)
{
    struct wish wish = understand(count, words);
    char *here = getcwd(NULL, 0), path[PATH_MAX], **command;
    struct dray_inside inside;

    leave_directories();
    be_as_submitted();
    find(wish.image, path, sizeof path);
    if (dray_read(&inside, path, false) || dray_join(&inside) ||
        dray_environment(&inside, wish.set, wish.set_count) ||
        dray_directory(&inside, wish.workdir, here))
        stop(NOT_RUN, inside.why);
    command = command_of(&wish, &inside);
    become(command);
}
