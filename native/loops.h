/* The event loop that runs in this thread. */

#ifndef SEQRPC_LOOPS_H
#define SEQRPC_LOOPS_H

#include "names.h"

/* Return it, borrowed: whoever asks is run by it. NULL if there is none, or with an exception. */
PyObject *running_loop(void);

/* Return the task that it runs now, a new reference; NULL if there is none, or with an exception. */
PyObject *current_task(PyObject *loop);

#endif
