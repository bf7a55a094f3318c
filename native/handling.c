/* What the task of a handler runs: the handler, and then the answer. What Dispatcher._run is in Python, which runs
 * where there is a task factory, or interceptors. It shows the handler's own frame and code.
 */

#include "lane.h"

PyTypeObject *handling_type;

PyObject *
new_handling(PyObject *dispatcher, PyObject *call, PyObject *work)
{
    Handling *self = PyObject_GC_New(Handling, handling_type);
    if (self == NULL) {
        return NULL;
    }
    self->dispatcher = Py_NewRef(dispatcher);
    self->call = Py_NewRef(call);
    self->work = Py_NewRef(work);
    self->state = UNBEGUN;
    self->is_running = false;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static int
handling_traverse(PyObject *object, visitproc visit, void *arg)
{
    Handling *self = (Handling *)object;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->dispatcher);
    Py_VISIT(self->call);
    Py_VISIT(self->work);
    return 0;
}

static int
handling_clear(PyObject *object)
{
    Handling *self = (Handling *)object;
    Py_CLEAR(self->dispatcher);
    Py_CLEAR(self->call);
    Py_CLEAR(self->work);
    return 0;
}

static void
handling_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    if (PyObject_CallFinalizerFromDealloc(object) < 0) {
        return;
    }
    PyObject_GC_UnTrack(object);
    handling_clear(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

/* Answer for a handler that raised `exc`, or was stopped, and end the call. 0 if that is all, -1 if something is to be
   raised. */
static int
fail(Handling *self, PyObject *exc)
{
    self->state = ENDED;
    PyObject *told = call_handling(exc, self->dispatcher, str__failed, self->call, self->work, exc, NULL);
    PyObject *raised = told == NULL ? caught_any() : NULL;
    Py_XDECREF(told);
    PyObject *running = PyObject_GetAttr(self->dispatcher, str_running);
    told = running == NULL ? NULL : call_handling(exc, running, str_end, self->call, NULL);
    Py_XDECREF(running);
    int result = told == NULL ? -1 : 0;
    Py_XDECREF(told);
    if (raised != NULL && result < 0) { /* as in `finally`: the last counts, and has the other as its context */
        PyObject *last = caught_any();
        PyException_SetContext(last, raised);
        raised = last;
    }
    if (raised != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
        Py_DECREF(raised);
        result = -1;
    }
    return result;
}

/* End with what was raised meanwhile. */
static int
fail_raised(Handling *self)
{
    PyObject *exc = caught_any();
    int result = fail(self, exc);
    Py_DECREF(exc);
    return result;
}

/* Answer with what the handler returned, which this owns, and end the call. */
static int
succeed(Handling *self, PyObject *result)
{
    self->state = ENDED;
    PyObject *lane = slot(self->dispatcher, dispatcher_lane), *told;
    if (lane != NULL && lane != Py_None) {
        enter((Lane *)lane);
        told = finish_call((Lane *)lane, self->call, result);
        leave((Lane *)lane);
    } else {
        told = PyObject_CallMethodObjArgs(self->dispatcher, str__succeeded, self->call, result, NULL);
    }
    Py_DECREF(result);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

/* Begin, as Dispatcher._run does where there is no task factory. */
static void
begin(Handling *self)
{
    self->state = WORKING;
    set_slot(self->call, call_has_begun, Py_True);
    set_slot(self->call, call_coroutine, Py_None);
}

/* Go on after the handler's coroutine gave a value, returned it, or raised. */
static PySendResult
go_on(Handling *self, PySendResult sent, PyObject **value)
{
    if (sent == PYGEN_NEXT) {
        return sent;
    }
    int failed = sent == PYGEN_RETURN ? succeed(self, *value) : fail_raised(self);
    *value = failed ? NULL : Py_NewRef(Py_None);
    return failed ? PYGEN_ERROR : PYGEN_RETURN;
}

/* Check that it is not at it, and has not ended. */
static int
check_may_go_on(Handling *self)
{
    if (self->is_running) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    if (self->state == ENDED || self->work == NULL) { /* nothing is left of garbage */
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return -1;
    }
    return 0;
}

static PySendResult
handling_am_send(PyObject *object, PyObject *sent, PyObject **value)
{
    Handling *self = (Handling *)object;
    *value = NULL;
    if (check_may_go_on(self) < 0) {
        return PYGEN_ERROR;
    }
    self->is_running = true;
    if (self->state == UNBEGUN) {
        begin(self);
    }
    PySendResult result = go_on(self, PyIter_Send(self->work, sent, value), value);
    self->is_running = false;
    return result;
}

/* Return what a method of a coroutine returns: a value that it gave, or NULL with StopIteration if it has ended. */
static PyObject *
as_returned(PySendResult result, PyObject *value)
{
    if (result == PYGEN_RETURN) {
        PyErr_SetNone(PyExc_StopIteration);
        Py_DECREF(value);
        return NULL;
    }
    return value;
}

static PyObject *
handling_send(PyObject *object, PyObject *sent)
{
    PyObject *value;
    PySendResult result = handling_am_send(object, sent, &value);
    return as_returned(result, value);
}

static PyObject *
handling_next(PyObject *object)
{
    return handling_send(object, Py_None);
}

static PyObject *
handling_throw(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Handling *self = (Handling *)object;
    if (count < 1 || count > 3) {
        return PyErr_Format(PyExc_TypeError, "throw takes 1 to 3 arguments, got %zd", count);
    }
    if (check_may_go_on(self) < 0) {
        return NULL;
    }
    self->is_running = true;
    PyObject *parts[4] = {self->work};
    for (Py_ssize_t index = 0; index < count; index++) {
        parts[index + 1] = args[index];
    }
    PyObject *value = PyObject_VectorcallMethod(str_throw, parts, (size_t)count + 1, NULL);
    PySendResult result = PYGEN_NEXT;
    if (value == NULL) {
        /* Neither a coroutine nor a generator lets a StopIteration out that it did not end with. */
        result = PyErr_ExceptionMatches(PyExc_StopIteration) ? PYGEN_RETURN : PYGEN_ERROR;
        if (result == PYGEN_RETURN) {
            PyObject *stop = caught_any();
            value = PyObject_GetAttr(stop, str_value);
            Py_DECREF(stop);
            result = value == NULL ? PYGEN_ERROR : result;
        }
    }
    result = go_on(self, result, &value);
    self->is_running = false;
    return as_returned(result, value);
}

static PyObject *
handling_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Handling *self = (Handling *)object;
    if (self->is_running) {
        return PyErr_Format(PyExc_ValueError, "coroutine already executing");
    }
    if (self->state == UNBEGUN || self->state == ENDED) {
        self->state = ENDED;
        Py_RETURN_NONE;
    }
    self->is_running = true;
    PyObject *closed = PyObject_CallMethodNoArgs(self->work, str_close);
    if (closed != NULL) {
        Py_DECREF(closed);
        PyErr_SetNone(PyExc_GeneratorExit);
    }
    int failed = fail_raised(self);
    self->is_running = false;
    if (failed && !PyErr_ExceptionMatches(PyExc_GeneratorExit)) {
        return NULL;
    }
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* A task that is thrown away unfinished closes what it runs, as those of Python do. */
static void
handling_finalize(PyObject *object)
{
    Handling *self = (Handling *)object;
    if (self->state == WORKING) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyObject *closed = handling_close(object, NULL);
        if (closed == NULL) {
            PyErr_WriteUnraisable(object);
        }
        Py_XDECREF(closed);
        PyErr_Restore(type, value, trace);
    }
}

/* Shows what the handler's coroutine shows. */
static PyObject *
of_work(PyObject *object, void *name)
{
    Handling *self = (Handling *)object;
    if (self->work == NULL) {
        Py_RETURN_NONE;
    }
    return PyObject_GetAttrString(self->work, (const char *)name);
}

static PyObject *
is_running(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Handling *)object)->is_running);
}

static PyObject *
itself(PyObject *object)
{
    return Py_NewRef(object);
}

static PyMethodDef handling_methods[] = {
    {"send",  handling_send,                               METH_O,        "As of a coroutine."},
    {"throw", (PyCFunction)(void (*)(void))handling_throw, METH_FASTCALL, "As of a coroutine."},
    {"close", handling_close,                              METH_NOARGS,   "As of a coroutine."},
    {NULL,    NULL,                                        0,             NULL                },
};

static PyGetSetDef handling_shown[] = {
    {"cr_frame",     of_work,    NULL, "That of the handler's coroutine.", "cr_frame"    },
    {"cr_code",      of_work,    NULL, "That of the handler's coroutine.", "cr_code"     },
    {"cr_await",     of_work,    NULL, "What the handler awaits.",         "cr_await"    },
    {"cr_origin",    of_work,    NULL, "That of the handler's coroutine.", "cr_origin"   },
    {"cr_suspended", of_work,    NULL, "Whether the handler waits.",       "cr_suspended"},
    {"cr_running",   is_running, NULL, "Whether it runs now.",             NULL          },
    {"__name__",     of_work,    NULL, "The handler's.",                   "__name__"    },
    {"__qualname__", of_work,    NULL, "The handler's.",                   "__qualname__"},
    {NULL,           NULL,       NULL, NULL,                               NULL          },
};

PyDoc_STRVAR(handling_doc, "What the task of a handler runs: the handler, and then the answer. A coroutine.");

static PyType_Slot handling_slots[] = {
    {Py_tp_doc,      (void *)handling_doc},
    {Py_tp_dealloc,  handling_dealloc    },
    {Py_tp_finalize, handling_finalize   },
    {Py_tp_traverse, handling_traverse   },
    {Py_tp_clear,    handling_clear      },
    {Py_tp_iter,     itself              },
    {Py_tp_iternext, handling_next       },
    {Py_am_await,    itself              },
    {Py_am_send,     handling_am_send    },
    {Py_tp_methods,  handling_methods    },
    {Py_tp_getset,   handling_shown      },
    {0,              NULL                },
};

PyType_Spec handling_spec = {
    .name = "seqrpc._native.Handling",
    .basicsize = sizeof(Handling),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handling_slots,
};
