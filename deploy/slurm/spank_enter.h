/* --enter: a step's tasks begin inside the image of their job, without any command before them. */
#ifndef SPANK_ENTER_H
#define SPANK_ENTER_H

#include <stdbool.h>
#include <stddef.h>

#include <slurm/spank.h>

/* Whether a word of plugstack.conf is for us: enter=asked|always, insides=DIR. */
bool dray_enter_configure(const char *word);

/* The option's, as Slurm calls it. */
int dray_enter_option(int option, const char *value, int remote);

/* Where a job is submitted: whether its user, or else the site, wants it to be entered. What the user
 * said is forgotten by being asked. */
enum dray_enter { DRAY_ENTER_NOT, DRAY_ENTER_USUAL, DRAY_ENTER_ASKED };
enum dray_enter dray_enter_wanted(void);

/* One that the prolog has left, `inside IMAGE_ID PATH`, of which the words behind the first. */
void dray_enter_known(char *line);

/* As root, in a task to be: get ready to go inside. `reason` says what keeps it out. */
void dray_enter_prepare(spank_t spank, char *reason, size_t room);

/* As the user, where that was done: go, and be at home there. */
void dray_enter_task(spank_t spank, char *reason, size_t room);

/* From the rest of the plugin: `pattern` with this node's name in the place of %n. */
bool dray_place(spank_t spank, const char *pattern, char *path, size_t room);

#endif
