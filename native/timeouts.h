/* Blocks with a time-out: as in seqrpc/interface/timeouts.py. */

#ifndef SEQRPC_TIMEOUTS_H
#define SEQRPC_TIMEOUTS_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

extern PyType_Spec timeout_spec;

/* Make what is waited for where there is nothing to wait for. -1 with an exception. */
int make_nothing(void);

#endif
