/* See alarms.h. A heap of times, of which the loop knows the earliest only; what was cancelled stays in it until its
 * time comes, or until most of it was.
 */

#include "alarms.h"
#include "names.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h>

#define EARLY 0.001 /* seconds by which a loop may call before the time: uvloop counts milliseconds */
#define LOOK 0.1    /* seconds after which a timer looks whether it is wanted, as long as alarms come and go */
#define MANY 16     /* cancelled ones that are kept in any case */
#define AT_ONCE 16  /* that ring in one turn of the loop, at most */
#define AT_MOST 256 /* the same, with those that say that it cost next to nothing */

PyTypeObject *alarm_type, *alarms_type;

typedef struct Alarms Alarms;

typedef struct {
    PyObject_HEAD Alarms *alarms;
    PyObject *call, *argument; /* NULL once it was called or cancelled */
} Alarm;

/* When an alarm rings; among those of one time that which was set first. */
typedef struct {
    double when;
    uint64_t number;
    Alarm *alarm;
} Entry;

struct Alarms {
    PyObject_HEAD Entry *heap;
    Py_ssize_t size, room, cancelled;
    uint64_t numbers;
    PyObject *loop;  /* NULL in garbage only */
    PyObject *timer; /* of the loop, or NULL */
    double when;     /* when that calls */
    bool changes;    /* whether any was cancelled since it called last, or was set */
    PyObject *weak;  /* references to this */
};

/* ---- The heap ---- */

static inline bool
is_before(const Entry *one, const Entry *other)
{
    return one->when < other->when || (one->when == other->when && one->number < other->number);
}

static void
sift_up(Entry *heap, Py_ssize_t at)
{
    Entry entry = heap[at];
    while (at > 0 && is_before(&entry, &heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = entry;
}

static void
sift_down(Entry *heap, Py_ssize_t size, Py_ssize_t at)
{
    Entry entry = heap[at];
    for (Py_ssize_t below = 2 * at + 1; below < size; below = 2 * at + 1) {
        if (below + 1 < size && is_before(&heap[below + 1], &heap[below])) {
            below++;
        }
        if (!is_before(&heap[below], &entry)) {
            break;
        }
        heap[at] = heap[below];
        at = below;
    }
    heap[at] = entry;
}

static int
push(Alarms *self, double when, Alarm *alarm)
{
    if (self->size == self->room) {
        Py_ssize_t room = self->room == 0 ? MANY : 2 * self->room;
        Entry *heap = PyMem_Realloc(self->heap, (size_t)room * sizeof *heap);
        if (heap == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->heap = heap;
        self->room = room;
    }
    self->heap[self->size] = (Entry){when, self->numbers++, (Alarm *)Py_NewRef(alarm)};
    sift_up(self->heap, self->size++);
    return 0;
}

/* Take the first out; it is the caller's. */
static Alarm *
pop(Alarms *self)
{
    Alarm *first = self->heap[0].alarm;
    self->heap[0] = self->heap[--self->size];
    if (self->size > 0) {
        sift_down(self->heap, self->size, 0);
    }
    return first;
}

/* Forget those that were cancelled. Letting go of one runs nothing: it refers to nothing any more. */
static void
forget_cancelled(Alarms *self)
{
    Py_ssize_t size = 0;
    for (Py_ssize_t at = 0; at < self->size; at++) {
        Entry entry = self->heap[at];
        if (entry.alarm->call != NULL) {
            self->heap[size++] = entry;
        } else {
            Py_DECREF(entry.alarm);
        }
    }
    self->size = size;
    self->cancelled = 0;
    for (Py_ssize_t at = size / 2 - 1; at >= 0; at--) {
        sift_down(self->heap, size, at);
    }
    if (size <= self->room / 4 && self->room > MANY) {
        Entry *heap = PyMem_Realloc(self->heap, (size_t)(self->room / 2) * sizeof *heap);
        if (heap != NULL) {
            self->heap = heap;
            self->room /= 2;
        }
    }
}

/* ---- One alarm ---- */

int
cancel_alarm(PyObject *object)
{
    Alarm *self = (Alarm *)object;
    if (self->call == NULL) {
        return 0;
    }
    Alarms *alarms = self->alarms;
    PyObject *call = self->call, *argument = self->argument;
    self->alarms = NULL;
    self->call = self->argument = NULL;
    alarms->cancelled++;
    alarms->changes = true;
    if (alarms->cancelled > MANY && 2 * alarms->cancelled > alarms->size) {
        forget_cancelled(alarms);
    }
    Py_DECREF(alarms);
    Py_DECREF(call); /* last: these may run anything */
    Py_DECREF(argument);
    return 1;
}

bool
is_alarm_set(PyObject *alarm)
{
    return Py_IS_TYPE(alarm, alarm_type) && ((Alarm *)alarm)->call != NULL;
}

static PyObject *
alarm_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(cancel_alarm(self));
}

static PyObject *
alarm_is_set(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Alarm *)self)->call != NULL);
}

static int
alarm_traverse(PyObject *object, visitproc visit, void *arg)
{
    Alarm *self = (Alarm *)object;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->alarms);
    Py_VISIT(self->call);
    Py_VISIT(self->argument);
    return 0;
}

static int
alarm_clear(PyObject *object)
{
    Alarm *self = (Alarm *)object;
    PyObject *call = self->call; /* NULL says that it is not set, so it goes with the rest */
    self->call = NULL;
    Py_XDECREF(call);
    Py_CLEAR(self->argument);
    Py_CLEAR(self->alarms);
    return 0;
}

static void
alarm_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    alarm_clear(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static Alarm *
new_alarm(Alarms *alarms, PyObject *call, PyObject *argument)
{
    Alarm *self = PyObject_GC_New(Alarm, alarm_type);
    if (self != NULL) {
        self->alarms = (Alarms *)Py_NewRef(alarms);
        self->call = Py_NewRef(call);
        self->argument = Py_NewRef(argument);
        PyObject_GC_Track(self);
    }
    return self;
}

/* ---- Those of a loop ---- */

/* Return the loop's own time; NaN with an exception. */
static double
time_of(Alarms *self)
{
    PyObject *now = PyObject_CallMethodNoArgs(self->loop, str_time);
    double seconds = now == NULL ? NAN : PyFloat_AsDouble(now);
    Py_XDECREF(now);
    return PyErr_Occurred() ? NAN : seconds;
}

/* Have the loop call at this time, and at no other; in a context that keeps nothing of anybody. */
static int
wind(Alarms *self, double when)
{
    int result = -1;
    PyObject *before = self->timer;
    self->timer = NULL;
    self->when = INFINITY;
    PyObject *told = before == NULL ? Py_NewRef(Py_None) : PyObject_CallMethodNoArgs(before, str_cancel);
    PyObject *method = PyObject_GetAttrString(self->loop, "call_at"),
             *ring = PyObject_GetAttrString((PyObject *)self, "ring");
    PyObject *context = PyContext_New(), *timer = NULL;
    PyObject *args = ring == NULL ? NULL : Py_BuildValue("(dO)", when, ring);
    PyObject *kwargs = context == NULL ? NULL : Py_BuildValue("{sO}", "context", context);
    if (told != NULL && method != NULL && args != NULL && kwargs != NULL) {
        timer = PyObject_Call(method, args, kwargs);
    }
    if (timer != NULL) {
        Py_XSETREF(self->timer, timer);
        self->when = when;
        result = 0;
    }
    Py_XDECREF(before);
    Py_XDECREF(told);
    Py_XDECREF(method);
    Py_XDECREF(ring);
    Py_XDECREF(context);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return result;
}

static PyObject *
set_one(Alarms *self, double seconds, PyObject *call, PyObject *argument)
{
    double now = time_of(self), when = now + seconds;
    if (PyErr_Occurred() || (when < self->when && wind(self, fmin(when, now + LOOK)) < 0)) {
        return NULL;
    }
    Alarm *alarm = new_alarm(self, call, argument);
    if (alarm != NULL && push(self, when, alarm) < 0) {
        Py_CLEAR(alarm);
    }
    return (PyObject *)alarm;
}

PyDoc_STRVAR(
    set_doc, "set(seconds, call, argument)\n--\n\n"
             "Have `call(argument)` called by the loop after so many seconds: seqrpc.interface.alarms.");

static PyObject *
alarms_set(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Alarms *self = (Alarms *)object;
    if (count != 3) {
        return PyErr_Format(PyExc_TypeError, "set takes 3 arguments, got %zd", count);
    }
    double seconds = PyFloat_AsDouble(args[0]);
    return PyErr_Occurred() ? NULL : set_one(self, seconds, args[1], args[2]);
}

/* Those that were asked for last, borrowed: they say so when they go. */
static Alarms *last;

PyObject *
set_alarm(PyObject *loop, double seconds, PyObject *call, PyObject *argument)
{
    PyObject *alarms = last != NULL && last->loop == loop ? Py_NewRef(last) : PyObject_CallOneArg(the_alarms_of, loop);
    PyObject *alarm = NULL;
    if (alarms != NULL && Py_IS_TYPE(alarms, alarms_type)) {
        last = (Alarms *)alarms;
        alarm = set_one(last, seconds, call, argument);
    } else if (alarms != NULL) {
        PyErr_SetString(PyExc_SystemError, "the alarms of this loop are not native");
    }
    Py_XDECREF(alarms); /* last: the timer that was set before may have been all that held them */
    return alarm;
}

double
seconds_until(PyObject *deadline)
{
    int overflow;
    int64_t nanoseconds = PyLong_AsLongLongAndOverflow(deadline, &overflow);
    double seconds = overflow ? INFINITY : (double)(nanoseconds - monotonic_ns()) * 1e-9;
    return fmin(fmax(0.0, seconds), PyFloat_AS_DOUBLE(the_longest_timer));
}

/* Call some of what is due. */
static int
call_due(Alarms *self)
{
    double due = time_of(self) + EARLY;
    if (PyErr_Occurred()) {
        return -1;
    }
    int left = AT_ONCE, most = AT_MOST;
    while (left > 0 && most > 0 && self->size > 0 && (self->heap[0].when <= due || self->heap[0].alarm->call == NULL)) {
        Alarm *alarm = pop(self);
        PyObject *call = alarm->call, *argument = alarm->argument, *told = NULL;
        if (call == NULL) {
            self->cancelled--;
            Py_DECREF(alarm);
            continue;
        }
        most--;
        alarm->call = alarm->argument = NULL;
        Py_DECREF(alarm);
        told = PyObject_CallOneArg(call, argument);
        Py_DECREF(call);
        Py_DECREF(argument);
        if (told == NULL) {
            return -1;
        }
        left -= told != Py_True;
        Py_DECREF(told);
    }
    return 0;
}

/* Have the loop call again for the first of those that are left. */
static int
wind_again(Alarms *self)
{
    bool changes = self->changes;
    self->changes = false;
    if (self->size == 0) {
        return 0;
    }
    double when = self->heap[0].when;
    if (changes) {
        when = fmin(when, time_of(self) + LOOK);
    }
    return PyErr_Occurred() || (when < self->when && wind(self, when) < 0) ? -1 : 0;
}

static PyObject *
alarms_ring(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Alarms *self = (Alarms *)object;
    Py_CLEAR(self->timer);
    self->when = INFINITY;
    PyObject *type = NULL, *value = NULL, *trace = NULL;
    if (call_due(self) < 0) {
        PyErr_Fetch(&type, &value, &trace);
    }
    int wound = wind_again(self);
    if (type != NULL) {
        PyErr_Clear(); /* what came first says more */
        PyErr_Restore(type, value, trace);
        return NULL;
    }
    return wound < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
alarms_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *loop;
    if ((kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) || !PyArg_ParseTuple(args, "O:Alarms", &loop)) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "Alarms takes no keywords");
    }
    Alarms *self = (Alarms *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->loop = Py_NewRef(loop);
        self->when = INFINITY;
        self->changes = true;
    }
    return (PyObject *)self;
}

static int
alarms_traverse(PyObject *object, visitproc visit, void *arg)
{
    Alarms *self = (Alarms *)object;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->timer);
    for (Py_ssize_t at = 0; at < self->size; at++) {
        Py_VISIT(self->heap[at].alarm);
    }
    return 0;
}

static int
alarms_clear(PyObject *object)
{
    Alarms *self = (Alarms *)object;
    if (last == self) {
        last = NULL;
    }
    Py_CLEAR(self->loop);
    Py_CLEAR(self->timer);
    while (self->size > 0) {
        Py_DECREF(self->heap[--self->size].alarm);
    }
    return 0;
}

static void
alarms_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (last == (Alarms *)object) { /* before anything of Python runs */
        last = NULL;
    }
    if (((Alarms *)object)->weak != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    alarms_clear(object);
    PyMem_Free(((Alarms *)object)->heap);
    type->tp_free(object);
    Py_DECREF(type);
}

static Py_ssize_t
alarms_length(PyObject *self)
{
    return ((Alarms *)self)->size;
}

static PyMethodDef alarm_methods[] = {
    {"cancel", alarm_cancel, METH_NOARGS, "cancel()\n--\n\nDo not call; False if it was called or cancelled before."},
    {NULL,     NULL,         0,           NULL                                                                      },
};

static PyGetSetDef alarm_shown[] = {
    {"is_set", alarm_is_set, NULL, "Whether it is still to be called.", NULL},
    {NULL,     NULL,         NULL, NULL,                                NULL},
};

static PyType_Slot alarm_slots[] = {
    {Py_tp_doc,      "Something to be called at a time, unless it is cancelled."},
    {Py_tp_dealloc,  alarm_dealloc                                              },
    {Py_tp_traverse, alarm_traverse                                             },
    {Py_tp_clear,    alarm_clear                                                },
    {Py_tp_methods,  alarm_methods                                              },
    {Py_tp_getset,   alarm_shown                                                },
    {0,              NULL                                                       },
};

PyType_Spec alarm_spec = {
    .name = "seqrpc._native.Alarm",
    .basicsize = sizeof(Alarm),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = alarm_slots,
};

static PyMethodDef alarms_methods[] = {
    {"set",  (PyCFunction)(void (*)(void))alarms_set, METH_FASTCALL, set_doc                          },
    {"ring", alarms_ring,                             METH_NOARGS,   "ring()\n--\n\nCall what is due."},
    {NULL,   NULL,                                    0,             NULL                             },
};

static PyMemberDef alarms_members[] = {
    {"loop", T_OBJECT_EX, offsetof(Alarms, loop), READONLY, "The loop."},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Alarms, weak), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot alarms_slots[] = {
    {Py_tp_doc,      "Alarms(loop)\n--\n\nThe alarms of one event loop: seqrpc.interface.alarms."},
    {Py_tp_new,      alarms_new                                                                  },
    {Py_tp_dealloc,  alarms_dealloc                                                              },
    {Py_tp_traverse, alarms_traverse                                                             },
    {Py_tp_clear,    alarms_clear                                                                },
    {Py_tp_members,  alarms_members                                                              },
    {Py_tp_methods,  alarms_methods                                                              },
    {Py_sq_length,   alarms_length                                                               },
    {0,              NULL                                                                        },
};

PyType_Spec alarms_spec = {
    .name = "seqrpc._native.Alarms",
    .basicsize = sizeof(Alarms),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = alarms_slots,
};
