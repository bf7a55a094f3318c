/* A call that was sent: what its caller waits for, and what that takes. It waits for an ordinary asyncio.Future as
 * `await` of that would, but ends without the result: Python's `await` of a future raises and catches a StopIteration
 * for that from 3.12 on. Whoever has waited asks the future.
 */

#include "lane.h"

#include <structmember.h>

PyTypeObject *sent_type;

typedef struct {
    PyObject_HEAD PyObject *call_id, *waiter, *alarm; /* `alarm` is None if there is no deadline */
    bool waits;
} Sent;

PyObject *
new_sent(PyObject *call_id, PyObject *waiter, PyObject *alarm)
{
    Sent *self = PyObject_GC_New(Sent, sent_type);
    if (self != NULL) {
        self->call_id = Py_NewRef(call_id);
        self->waiter = Py_NewRef(waiter);
        self->alarm = Py_NewRef(alarm);
        self->waits = false;
        PyObject_GC_Track(self);
    }
    return (PyObject *)self;
}

static int
sent_traverse(PyObject *object, visitproc visit, void *arg)
{
    Sent *self = (Sent *)object;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->waiter);
    Py_VISIT(self->alarm);
    return 0;
}

static int
sent_clear(PyObject *object)
{
    Sent *self = (Sent *)object;
    Py_CLEAR(self->call_id);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->alarm);
    return 0;
}

static void
sent_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    sent_clear(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyObject *
itself(PyObject *object)
{
    return Py_NewRef(object);
}

/* Give the future to the task that is to wait for it; NULL without an exception once that is done. */
static PyObject *
sent_next(PyObject *object)
{
    Sent *self = (Sent *)object;
    int done = self->waiter == NULL ? 1 : is_future_done(self->waiter);
    if (done != 0) {
        return NULL;
    }
    if (self->waits) {
        return PyErr_Format(PyExc_RuntimeError, "await wasn't used with future");
    }
    if (PyObject_SetAttr(self->waiter, str__asyncio_future_blocking, Py_True) < 0) {
        return NULL;
    }
    self->waits = true;
    return Py_NewRef(self->waiter);
}

static PySendResult
sent_send(PyObject *object, PyObject *Py_UNUSED(sent), PyObject **value)
{
    *value = sent_next(object);
    if (*value != NULL) {
        return PYGEN_NEXT;
    }
    if (PyErr_Occurred()) {
        return PYGEN_ERROR;
    }
    *value = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

static PyMemberDef sent_members[] = {
    {"call_id", T_OBJECT, offsetof(Sent, call_id), READONLY, "The number of the call."},
    {"waiter", T_OBJECT, offsetof(Sent, waiter), READONLY, "The future that the RESPONSE is the result of."},
    {"alarm", T_OBJECT, offsetof(Sent, alarm), READONLY, "What ends this at the deadline, or None."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot sent_slots[] = {
    {Py_tp_doc,      "A call that was sent: seqrpc.aio.lane.Sent."},
    {Py_tp_dealloc,  sent_dealloc                                 },
    {Py_tp_traverse, sent_traverse                                },
    {Py_tp_clear,    sent_clear                                   },
    {Py_tp_iter,     itself                                       },
    {Py_tp_iternext, sent_next                                    },
    {Py_am_await,    itself                                       },
    {Py_am_send,     sent_send                                    },
    {Py_tp_members,  sent_members                                 },
    {0,              NULL                                         },
};

PyType_Spec sent_spec = {
    .name = "seqrpc._native.Sent",
    .basicsize = sizeof(Sent),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = sent_slots,
};
