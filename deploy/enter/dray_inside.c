#define _GNU_SOURCE
#include "dray_inside.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

__attribute__((format(printf, 2, 3)))
static int fail(struct dray_inside *inside, const char *format, ...)
{
    va_list words;

    va_start(words, format);
    vsnprintf(inside->why, sizeof inside->why, format, words);
    va_end(words);
    return -1;
}

/* ---- before it ------------------------------------------------------------------------------ */

/* Never through a link, and never waiting for whoever is at the other end of a pipe. */
static int open_in(int directory, const char *name)
{
    return openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static int read_words(struct dray_inside *inside, int directory, const char *name,
                      struct dray_words *words)
{
    int file = open_in(directory, name);
    struct stat found;
    ssize_t got = 0;

    if (file < 0)
        return fail(inside, "cannot read '%s' of the image that was prepared: %s", name,
                    strerror(errno));
    if (fstat(file, &found) < 0 || !S_ISREG(found.st_mode) || found.st_size > DRAY_MAX_FILE ||
        !(words->text = malloc((size_t)found.st_size + 1))) {
        close(file);
        return fail(inside, "'%s' of the image that was prepared is no file of ours", name);
    }
    while (words->length < (size_t)found.st_size) {
        got = read(file, words->text + words->length, (size_t)found.st_size - words->length);
        if (got <= 0)
            break;
        words->length += (size_t)got;
    }
    close(file);
    if (got < 0 || (words->length && words->text[words->length - 1]))
        return fail(inside, "'%s' of the image that was prepared is not whole", name);
    return 0;
}

static int read_all(struct dray_inside *inside, int directory)
{
    if (geteuid() != 0 && (inside->users = open_in(directory, "user")) < 0)
        return fail(inside,
                    errno == ENOENT ? "only the scheduler's plugin enters images here: srun --enter"
                                    : "cannot open the user namespace of the job: %s",
                    strerror(errno));
    inside->mounts = open_in(directory, inside->users < 0 ? "mnt" : "user-mnt");
    if (inside->mounts < 0)
        return fail(inside, "cannot open the mounts of the job: %s", strerror(errno));
    return read_words(inside, directory, "env", &inside->env) ||
                   read_words(inside, directory, "changes", &inside->changes) ||
                   read_words(inside, directory, "workdir", &inside->workdir) ||
                   read_words(inside, directory, "entrypoint", &inside->entrypoint) ||
                   read_words(inside, directory, "cmd", &inside->cmd)
               ? -1
               : 0;
}

int dray_read(struct dray_inside *inside, const char *pinned, bool must_be_roots)
{
    int directory = open(pinned, O_PATH | O_DIRECTORY | O_CLOEXEC | (must_be_roots ? O_NOFOLLOW : 0));
    struct stat found;
    int failed;

    *inside = (struct dray_inside){.users = -1, .mounts = -1};
    if (directory < 0)
        return fail(inside, "no image was prepared at %s (%s): has the job ended?", pinned,
                    strerror(errno));
    if (must_be_roots &&
        (fstat(directory, &found) < 0 || found.st_uid != 0 || found.st_mode & (S_IWGRP | S_IWOTH)))
        failed = fail(inside, "%s is not root's alone", pinned);
    else
        failed = read_all(inside, directory);
    close(directory);
    return failed;
}

const char *dray_next(const struct dray_words *words, const char *word)
{
    word = word ? word + strlen(word) + 1 : words->text;
    return word < words->text + words->length ? word : NULL;
}

/* ---- into it -------------------------------------------------------------------------------- */

/* Nor into a terminal what a shell of root's would take for typed there. Some kernels have no such
 * filters; the other numbers are those of programs of 32 bits. */
static void type_nothing(void)
{
    enum { SECOND = offsetof(struct seccomp_data, args[1]) +
                    (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0) };
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 54, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x40000202, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SECOND),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TIOCSTI, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TIOCLINUX, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};

    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

static int forget_privileges(struct dray_inside *inside)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};
    int there;

    for (int number = 0; (there = prctl(PR_CAPBSET_READ, number, 0, 0, 0)) >= 0; number++)
        if (there && prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0)
            return fail(inside, "cannot give up capabilities: %s", strerror(errno));
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
        syscall(SYS_capset, &header, none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail(inside, "cannot give up all privileges: %s", strerror(errno));
    if (geteuid() == 0)
        type_nothing();
    return 0;
}

int dray_join(struct dray_inside *inside)
{
    if ((inside->users >= 0 && setns(inside->users, CLONE_NEWUSER) < 0) ||
        setns(inside->mounts, CLONE_NEWNS) < 0 || chdir("/") < 0)
        return fail(inside, "cannot enter the image that was prepared: %s%s", strerror(errno),
                    errno == EPERM ? "; only the job's own user may" : "");
    if (inside->users >= 0)
        close(inside->users);
    close(inside->mounts);
    inside->users = inside->mounts = -1;
    return forget_privileges(inside);
}

/* ---- at home in it -------------------------------------------------------------------------- */

/* Of the host's loader and interpreters: what they name is not in the image. The last one is a
 * secret, and an image may be anybody's. */
static bool never(const char *entry)
{
    static const char *const names[] = {"GLIBC_TUNABLES", "BASH_ENV",      "ENV",
                                        "PYTHONPATH",     "PYTHONHOME",    "PYTHONSTARTUP",
                                        "PERLLIB",        "PERL5LIB",      "DRAY_TOKEN"};
    size_t length = strcspn(entry, "=");

    if (!strncmp(entry, "LD_", 3))
        return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == length && !strncmp(entry, names[i], length))
            return true;
    return false;
}

/* One of =NAME=VALUE, <NAME=VALUE, >NAME=VALUE and -NAME; `name` has room for either. */
static int operate(const char *operation, char *name)
{
    const char *rest = operation + 1, *value = strchr(rest, '=');
    const char *before = NULL;
    char *both = NULL;
    int failed;

    if (*operation == '-') {
        unsetenv(rest); /* what cannot be a name is not set either */
        return 0;
    }
    if (!value || !strchr("=<>", *operation)) {
        errno = EINVAL;
        return -1;
    }
    *stpncpy(name, rest, (size_t)(value - rest)) = '\0';
    value++;
    if (*operation != '=')
        before = getenv(name);
    if (!before || !*before)
        return setenv(name, value, 1);
    if (asprintf(&both, "%s:%s", *operation == '<' ? value : before,
                 *operation == '<' ? before : value) < 0)
        return -1;
    failed = setenv(name, both, 1);
    free(both);
    return failed;
}

static int operate_all(const struct dray_words *operations)
{
    const char *operation = NULL;
    char *name = malloc(operations->length + 1);
    int failed = !name;

    while (!failed && (operation = dray_next(operations, operation)))
        failed = *operation ? operate(operation, name) : -1;
    free(name);
    return failed;
}

/* Without any, the kernel and each shell would take one of their own. */
static int have_path(void)
{
    const char *path = getenv("PATH");

    return path && *path ? 0 : setenv("PATH", DRAY_DEFAULT_PATH, 1);
}

int dray_environment(struct dray_inside *inside, char **users, int count)
{
    char **kept = environ;
    int failed;

    for (char **entry = environ; entry && *entry; entry++)
        if (!never(*entry))
            *kept++ = *entry;
    if (kept)
        *kept = NULL;
    failed = setenv("PATH", DRAY_DEFAULT_PATH, 1) || operate_all(&inside->env) || have_path();
    for (int i = 0; !failed && i < count; i++)
        failed = putenv(users[i]);
    if (failed || operate_all(&inside->changes) || have_path())
        return fail(inside, "the environment that the image wants cannot be: %s", strerror(errno));
    return 0;
}

static int work_in(const char *path)
{
    char found[PATH_MAX];

    if (chdir(path) < 0)
        return -1;
    /* By /proc/self/fd, what somebody left open here of the host could be a way out. */
    if (syscall(SYS_getcwd, found, sizeof found) > 0 && *found == '/')
        return 0;
    errno = chdir("/") < 0 ? errno : EACCES;
    return -1;
}

int dray_directory(struct dray_inside *inside, const char *wanted, const char *here)
{
    const char *usual[] = {here, dray_next(&inside->workdir, NULL), getenv("HOME"), "/"};

    if (wanted && work_in(wanted) < 0)
        return fail(inside, "cannot work in %s of the image: %s", wanted, strerror(errno));
    for (size_t i = 0; !wanted && i < sizeof usual / sizeof *usual; i++)
        if (usual[i] && *usual[i] == '/' && work_in(usual[i]) == 0)
            break;
    return 0;
}
