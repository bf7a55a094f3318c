/* Deadlines on an event loop, which share one of its timers: as in seqrpc/interface/alarms.py. */

#ifndef SEQRPC_ALARMS_H
#define SEQRPC_ALARMS_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <stdbool.h>

extern PyType_Spec alarm_spec, alarms_spec;
extern PyTypeObject *alarm_type, *alarms_type;

/* Have `call(argument)` called by a loop after so many seconds, as Alarms.set does; NULL with an exception. */
PyObject *set_alarm(PyObject *loop, double seconds, PyObject *call, PyObject *argument);

/* Seconds until a deadline, an int of nanoseconds: not less than none, and not more than a timer takes. */
double seconds_until(PyObject *deadline);

/* Whether this is an alarm of these, and still to be called. */
bool is_alarm_set(PyObject *alarm);

/* Do not call it: 1 if it would have been called, 0 if it was called or cancelled before, -1 on an exception. */
int cancel_alarm(PyObject *alarm);

#endif
