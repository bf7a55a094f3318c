/* Deadlines on an event loop, which share one of its timers: as in seqrpc/interface/alarms.py. */

#ifndef SEQRPC_ALARMS_H
#define SEQRPC_ALARMS_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

extern PyType_Spec alarm_spec, alarms_spec;
extern PyTypeObject *alarm_type;

/* Do not call it: 1 if it would have been called, 0 if it was called or cancelled before, -1 on an exception. */
int cancel_alarm(PyObject *alarm);

#endif
