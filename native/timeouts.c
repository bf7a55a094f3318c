/* Blocks with a time-out on an event loop, as they mostly are: seqrpc.interface.timeouts.Timeout does the rest, before
 * anything has happened here.
 */

#include "alarms.h"
#include "loops.h"
#include "names.h"
#include "timeouts.h"

#include <structmember.h>

#define FOREVER 1e9 /* seconds: seqrpc.interface.scope */

typedef struct {
    PyObject_HEAD PyObject *delay, *bound, *token, *task, *alarm;
    Py_ssize_t cancelling;
    char with_loop;
} Timeout;

/* ---- What there is nothing to wait for ---- */

static PyObject *nothing;

static PyObject *
nothing_itself(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *
nothing_next(PyObject *Py_UNUSED(self))
{
    return NULL; /* it ends, and returns None */
}

static PySendResult
nothing_send(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(sent), PyObject **value)
{
    *value = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

static PyType_Slot nothing_slots[] = {
    {Py_tp_doc,      "What need not be waited for."},
    {Py_tp_iter,     nothing_itself                },
    {Py_tp_iternext, nothing_next                  },
    {Py_am_await,    nothing_itself                },
    {Py_am_send,     nothing_send                  },
    {0,              NULL                          },
};

static PyType_Spec nothing_spec = {
    .name = "seqrpc._native.Nothing",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = nothing_slots,
};

int
make_nothing(void)
{
    PyTypeObject *type = nothing == NULL ? (PyTypeObject *)PyType_FromSpec(&nothing_spec) : NULL;
    if (type != NULL) {
        nothing = type->tp_alloc(type, 0);
        Py_DECREF(type);
    }
    return nothing == NULL ? -1 : 0;
}

/* ---- Entering ---- */

/* Whether a member has nothing: Python writes None. */
static bool
is_nothing(PyObject *member)
{
    return member == NULL || member == Py_None;
}

/* Nanoseconds until the time is up for a delay: 1 if it has an end, 0 if it has none, -1 if it is out of the ordinary.
 */
static int
nanoseconds_of(PyObject *delay, int64_t *nanoseconds)
{
    double seconds;
    if (delay == Py_None) {
        return 0;
    }
    if (PyFloat_CheckExact(delay)) {
        seconds = PyFloat_AS_DOUBLE(delay);
    } else if (PyLong_CheckExact(delay)) {
        seconds = PyLong_AsDouble(delay);
        if (seconds == -1.0 && PyErr_Occurred()) {
            PyErr_Clear();
            return -1;
        }
    } else {
        return -1;
    }
    if (seconds >= FOREVER) {
        return 0;
    }
    if (!(seconds > 0.0)) { /* or no number */
        return -1;
    }
    *nanoseconds = (int64_t)(seconds * 1e9);
    return 1;
}

/* The deadline inside, as seqrpc.interface.scope.bounded has it: a new reference and its number; NULL if it is out of
   the ordinary, as one that has passed is. */
static PyObject *
deadline_inside(PyObject *delay, PyObject *outer, int64_t now, int64_t *deadline)
{
    int64_t own = 0;
    int is_bounded = nanoseconds_of(delay, &own);
    own += now;
    PyObject *outer_deadline = slot(outer, scope_deadline_ns);
    if (is_bounded < 0 || outer_deadline == NULL) {
        return NULL;
    }
    if (outer_deadline == Py_None) {
        if (is_bounded && own <= now) {
            return NULL;
        }
        *deadline = own;
        return is_bounded ? PyLong_FromLongLong(own) : Py_NewRef(Py_None);
    }
    int overflow = 1;
    int64_t theirs = PyLong_CheckExact(outer_deadline) ? PyLong_AsLongLongAndOverflow(outer_deadline, &overflow) : 0;
    *deadline = is_bounded && own < theirs ? own : theirs;
    if (overflow || *deadline <= now) {
        return NULL;
    }
    return *deadline == own && is_bounded ? PyLong_FromLongLong(own) : Py_NewRef(outer_deadline);
}

/* Have what is called from here on take the deadline along, and the task cancelled then. 0 with nothing done. */
static int
bound_task(Timeout *self, PyObject *loop, PyObject *task, PyObject *outer)
{
    int64_t now = monotonic_ns(), deadline = 0;
    PyObject *counted = PyObject_CallMethodNoArgs(task, str_cancelling), *alarm = NULL, *inside = NULL, *token = NULL;
    Py_ssize_t cancelling = counted == NULL ? -1 : PyLong_AsSsize_t(counted);
    Py_XDECREF(counted);
    if (PyErr_Occurred()) {
        return -1;
    }
    PyObject *deadline_ns = deadline_inside(self->delay, outer, now, &deadline);
    if (deadline_ns == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *meta = slot(outer, scope_outgoing_meta);
    inside = meta == NULL ? NULL : copy_of_struct(the_blank_scope, NULL);
    if (inside == NULL) {
        goto done;
    }
    set_slot(inside, scope_deadline_ns, deadline_ns);
    set_slot(inside, scope_outgoing_meta, meta);
    set_slot(inside, scope_outer, outer);
    if (deadline_ns != Py_None) {
        alarm = set_alarm(loop, (double)(deadline - now) * 1e-9, the_cancel_task, task);
        if (alarm == NULL) {
            goto done;
        }
    }
    token = PyContextVar_Set(the_scope, inside);
    if (token == NULL) {
        if (alarm != NULL) {
            cancel_alarm(alarm);
        }
        goto done;
    }
    self->cancelling = cancelling;
    Py_XSETREF(self->task, Py_NewRef(task));
    Py_XSETREF(self->alarm, Py_XNewRef(alarm));
    Py_XSETREF(self->token, Py_NewRef(token));
done:
    Py_DECREF(deadline_ns);
    Py_XDECREF(inside);
    Py_XDECREF(alarm);
    Py_XDECREF(token);
    return token != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
}

/* Enter the block: 1 if that is done, 0 if nothing is, -1 on an exception. */
static int
enter_block(Timeout *self)
{
    PyObject *loop = is_nothing(self->task) && is_bound ? running_loop() : NULL;
    PyObject *task = loop == NULL ? NULL : current_task(loop), *outer = NULL;
    int entered = 0;
    if (task != NULL && PyContextVar_Get(the_scope, NULL, &outer) == 0 && outer != NULL &&
        PyObject_TypeCheck(outer, (PyTypeObject *)the_Scope)) {
        entered = bound_task(self, loop, task, outer);
    }
    Py_XDECREF(task);
    Py_XDECREF(outer);
    return PyErr_Occurred() ? -1 : entered;
}

static PyObject *
timeout_aenter(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    int entered = enter_block((Timeout *)object);
    if (entered < 0) {
        return NULL;
    }
    return entered ? Py_NewRef(nothing) : PyObject_CallMethodNoArgs(object, str_enter);
}

/* ---- Leaving ---- */

static PyObject *
timeout_aexit(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Timeout *self = (Timeout *)object;
    if (count != 3) {
        return PyErr_Format(PyExc_TypeError, "__aexit__ takes 3 arguments, got %zd", count);
    }
    if (!is_bound || is_nothing(self->task) || is_nothing(self->token) ||
        (!is_nothing(self->alarm) && !is_alarm_set(self->alarm))) {
        return PyObject_CallMethodObjArgs(object, str_leave, args[0], args[1], args[2], NULL);
    }
    if (!is_nothing(self->alarm)) {
        cancel_alarm(self->alarm); /* first: another task that leaves the block cannot reset */
    }
    Py_CLEAR(self->task);
    PyObject *token = Py_NewRef(self->token);
    int reset = PyContextVar_Reset(the_scope, token);
    Py_DECREF(token);
    if (reset < 0) {
        return NULL;
    }
    Py_CLEAR(self->token);
    Py_CLEAR(self->alarm);
    return Py_NewRef(nothing);
}

/* ---- The object ---- */

static PyObject *
timeout_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"delay", "with_loop", NULL};
    PyObject *delay;
    int with_loop = 1;
    if (kwargs == NULL && PyTuple_GET_SIZE(args) == 1) {
        delay = PyTuple_GET_ITEM(args, 0);
    } else if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$p:Timeout", names, &delay, &with_loop)) {
        return NULL;
    }
    Timeout *self = (Timeout *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->delay = Py_NewRef(delay);
        self->with_loop = (char)with_loop;
    }
    return (PyObject *)self;
}

static int
timeout_traverse(PyObject *object, visitproc visit, void *arg)
{
    Timeout *self = (Timeout *)object;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->delay);
    Py_VISIT(self->bound);
    Py_VISIT(self->token);
    Py_VISIT(self->task);
    Py_VISIT(self->alarm);
    return 0;
}

static int
timeout_clear(PyObject *object)
{
    Timeout *self = (Timeout *)object;
    Py_CLEAR(self->delay);
    Py_CLEAR(self->bound);
    Py_CLEAR(self->token);
    Py_CLEAR(self->task);
    Py_CLEAR(self->alarm);
    return 0;
}

static void
timeout_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    timeout_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMemberDef timeout_members[] = {
    {"_delay", T_OBJECT, offsetof(Timeout, delay), READONLY, "Seconds, or None."},
    {"_bound", T_OBJECT, offsetof(Timeout, bound), 0, "The deadline of a block without a loop."},
    {"_token", T_OBJECT, offsetof(Timeout, token), 0, "Brings the scope outside back."},
    {"_task", T_OBJECT, offsetof(Timeout, task), 0, "Which it bounds now."},
    {"_alarm", T_OBJECT, offsetof(Timeout, alarm), 0, "Cancels the task."},
    {"_cancelling", T_PYSSIZET, offsetof(Timeout, cancelling), 0, "How often the task had been cancelled."},
    {"_with_loop", T_BOOL, offsetof(Timeout, with_loop), READONLY, "Whether an event loop is meant if one runs."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef timeout_methods[] = {
    {"__aenter__", timeout_aenter,                             METH_NOARGS,   "Bound what happens in the task."},
    {"__aexit__",  (PyCFunction)(void (*)(void))timeout_aexit, METH_FASTCALL, "End the bound."                 },
    {NULL,         NULL,                                       0,             NULL                             },
};

static PyType_Slot timeout_slots[] = {
    {Py_tp_doc,      "A block with a time-out, as it mostly is: seqrpc.interface.timeouts."},
    {Py_tp_new,      timeout_new                                                           },
    {Py_tp_dealloc,  timeout_dealloc                                                       },
    {Py_tp_traverse, timeout_traverse                                                      },
    {Py_tp_clear,    timeout_clear                                                         },
    {Py_tp_members,  timeout_members                                                       },
    {Py_tp_methods,  timeout_methods                                                       },
    {0,              NULL                                                                  },
};

PyType_Spec timeout_spec = {
    .name = "seqrpc._native.Timeout",
    .basicsize = sizeof(Timeout),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = timeout_slots,
};
