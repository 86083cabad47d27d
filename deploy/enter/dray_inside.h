/*
 * The inside of a job's image, from where a rank stands before it: a directory in which the node's
 * agent has pinned namespaces (mnt for root; user and user-mnt for others) and left what the image
 * wants of a program (env, workdir, entrypoint, cmd) and what modules and the site add (changes):
 * words that each end with a NUL.
 *
 * In this order: read, join, environment, directory. What fails returns -1, and leaves one line in
 * `why`. Nothing here trusts the directory: a user may have made it.
 */
#ifndef DRAY_INSIDE_H
#define DRAY_INSIDE_H

#include <stdbool.h>
#include <stddef.h>

#ifndef DRAY_INSIDES /* where the site's agents have another agent.run_dir */
#define DRAY_INSIDES "/run/dray/insides"
#endif
#define DRAY_DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { DRAY_MAX_FILE = 1 << 20, DRAY_MAX_WHY = 512 };

struct dray_words {
    char *text; /* `length` bytes, and the last is a NUL where there are any */
    size_t length;
};

struct dray_inside {
    int users;  /* the user's own namespace; -1 for root, who needs none */
    int mounts;
    struct dray_words env, changes, workdir, entrypoint, cmd;
    char why[DRAY_MAX_WHY];
};

/* `must_be_roots`: of a directory that others could have made, root takes nothing. */
int dray_read(struct dray_inside *inside, const char *pinned, bool must_be_roots);

/* Be inside, at its root directory, without any capability and with no way to one, by setuid or
 * otherwise; for a process with one thread. */
int dray_join(struct dray_inside *inside);

/* `environ` becomes that of a program in the image: the image's variables, then the user's, which
 * are `count` words NAME=VALUE, then what modules and the site have to say. */
int dray_environment(struct dray_inside *inside, char **users, int count);

/* Work in `wanted`; without one in `here`, else where the image or the user is at home. */
int dray_directory(struct dray_inside *inside, const char *wanted, const char *here);

/* The word behind this one, or the first; NULL behind the last. */
const char *dray_next(const struct dray_words *words, const char *word);

#endif
