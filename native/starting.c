/* How the task of a handler begins: at once, in the wake-up that brought the call, as seqrpc.aio.starting.begin does.
 */

#include "lane.h"
#include "loops.h"

PyTypeObject *first_step_type;

/* ---- What stands for the loop while a task is made on Python 3.11: seqrpc.aio.starting.FirstStep ---- */

typedef struct {
    PyObject_HEAD PyObject *step;
} FirstStep;

static PyObject *
first_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *Py_UNUSED(names))
{
    if (count != 1) {
        return PyErr_Format(PyExc_TypeError, "call_soon takes a step and a context, got %zd arguments", count);
    }
    Py_XSETREF(((FirstStep *)self)->step, Py_NewRef(args[0]));
    Py_RETURN_NONE;
}

static PyObject *
first_get_debug(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

static PyObject *
first_exception_handler(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(context))
{
    Py_RETURN_NONE;
}

static void
first_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(((FirstStep *)self)->step);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef first_methods[] = {
    {"call_soon",              (PyCFunction)(void (*)(void))first_call_soon, METH_FASTCALL | METH_KEYWORDS, "Keep the step."                               },
    {"get_debug",              first_get_debug,                              METH_NOARGS,                   "Have nothing noted."                          },
    {"call_exception_handler", first_exception_handler,                      METH_O,                        "Say nothing of a task that could not be made."},
    {NULL,                     NULL,                                         0,                             NULL                                           },
};

static PyType_Slot first_slots[] = {
    {Py_tp_doc,     "Stands for the loop while a task is made on Python 3.11, and keeps the first step."},
    {Py_tp_dealloc, first_dealloc                                                                       },
    {Py_tp_methods, first_methods                                                                       },
    {0,             NULL                                                                                },
};

PyType_Spec first_step_spec = {
    .name = "seqrpc._native.FirstStep",
    .basicsize = sizeof(FirstStep),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = first_slots,
};

/* ---- Tasks ---- */

#if PY_VERSION_HEX >= 0x030C0000

PyObject *
begin_task(Lane *lane, PyObject *context, PyObject *coroutine)
{
    PyObject *parts[] = {coroutine, lane->loop, context, Py_True};
    return PyObject_Vectorcall(the_Task, parts, 1, names_of_task);
}

#else

/* Make what a task is as a future anew, with the loop that is to go on with it. */
static int
give_to_loop(PyObject *task, PyObject *loop)
{
    PyObject *args = PyTuple_New(0), *kwargs = PyDict_New();
    int result = -1;
    if (args != NULL && kwargs != NULL && PyDict_SetItem(kwargs, str_loop, loop) == 0) {
        result = ((PyTypeObject *)the_Task)->tp_base->tp_init(task, args, kwargs);
    }
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return result;
}

/* Take the first step in the context. */
static int
take_first_step(PyObject *context, PyObject *step)
{
    if (PyContext_Enter(context) < 0) {
        return -1;
    }
    PyObject *taken = PyObject_CallNoArgs(step);
    int result = PyContext_Exit(context) < 0 || taken == NULL ? -1 : 0;
    Py_XDECREF(taken);
    return result;
}

PyObject *
begin_task(Lane *lane, PyObject *context, PyObject *coroutine)
{
    PyObject *current = PyDict_GetItemWithError(the_current_tasks, lane->loop);
    if (current != NULL || PyType_HasFeature(((PyTypeObject *)the_Task)->tp_base, Py_TPFLAGS_HEAPTYPE)) {
        return PyObject_CallFunctionObjArgs(the_begin, lane->loop, context, coroutine, NULL);
    }
    FirstStep *first = PyErr_Occurred() ? NULL : PyObject_New(FirstStep, first_step_type);
    if (first == NULL) {
        return NULL;
    }
    first->step = NULL;
    PyObject *parts[] = {coroutine, (PyObject *)first, context};
    PyObject *task = PyObject_Vectorcall(the_Task, parts, 1, names_of_task);
    PyObject *step = first->step;
    first->step = NULL;
    if (task != NULL && (step == NULL || give_to_loop(task, lane->loop) < 0 || take_first_step(context, step) < 0)) {
        Py_CLEAR(task);
    }
    Py_XDECREF(step);
    Py_DECREF(first);
    return task;
}

#endif
