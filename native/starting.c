/* How the task of a handler begins: at once, in the wake-up that brought the call, as seqrpc.aio.starting.Starter does.
 */

#include "lane.h"
#include "loops.h"

PyTypeObject *first_step_type;

/* ---- What stands for the loop while a task is made on Python 3.11: seqrpc.aio.starting.FirstStep ---- */

typedef struct {
    PyObject_HEAD PyObject *step;
    PyObject *loop; /* which it stands for: borrowed, while a task is made */
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
first_get_debug(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *loop = ((FirstStep *)self)->loop;
    return loop == NULL ? Py_NewRef(Py_False) : PyObject_CallMethodNoArgs(loop, str_get_debug);
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

/* Keywords for a task, without anything of a loop or a call in them, while none is made; NULL before the first. */
static PyObject *spare_keywords;

/* Return keywords, out of anybody else's hands: a handler's first step may come to where they are wanted. */
static PyObject *
take_keywords(PyObject *loop)
{
    PyObject *keywords = spare_keywords;
    spare_keywords = NULL;
    if (keywords == NULL) {
#if PY_VERSION_HEX >= 0x030C0000
        keywords = Py_BuildValue("{sO}", "eager_start", Py_True);
#else
        PyObject *first = (PyObject *)PyObject_New(FirstStep, first_step_type);
        if (first != NULL) {
            ((FirstStep *)first)->step = ((FirstStep *)first)->loop = NULL;
            keywords = Py_BuildValue("{sN}", "loop", first);
        }
#endif
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (keywords != NULL && PyDict_SetItem(keywords, str_loop, loop) < 0) {
        Py_CLEAR(keywords);
    }
#else
    (void)loop; /* something stands for it */
#endif
    return keywords;
}

/* Make a task as calling the class would, without a dict of keywords for each: they are kept if it was made. */
static PyObject *
make_task(PyObject *keywords, PyObject *context, PyObject *coroutine)
{
    PyTypeObject *type = (PyTypeObject *)the_Task;
    PyObject *args = PyTuple_Pack(1, coroutine), *task = NULL;
    if (args != NULL && PyDict_SetItem(keywords, str_context, context) == 0) {
        task = type->tp_new(type, args, keywords);
    }
    if (task != NULL && type->tp_init(task, args, keywords) < 0) {
        Py_CLEAR(task);
    }
    Py_XDECREF(args);
    bool is_clean = task != NULL && PyDict_SetItem(keywords, str_context, Py_None) == 0;
#if PY_VERSION_HEX >= 0x030C0000
    is_clean = is_clean && PyDict_SetItem(keywords, str_loop, Py_None) == 0;
#endif
    if (is_clean) {
        Py_XSETREF(spare_keywords, Py_NewRef(keywords));
    } else {
        Py_CLEAR(task);
    }
    return task;
}

#if PY_VERSION_HEX >= 0x030C0000

PyObject *
begin_task(Lane *lane, PyObject *context, PyObject *coroutine)
{
    PyObject *keywords = take_keywords(lane->loop);
    PyObject *task = keywords == NULL ? NULL : make_task(keywords, context, coroutine);
    Py_XDECREF(keywords);
    return task;
}

#else

/* A task as 3.11 makes it begins as its loop (Modules/_asynciomodule.c, FutureObj_HEAD). */
typedef struct {
    PyObject_HEAD PyObject *loop;
} Future;

/* Give a task that was made with `first` to the loop that is to go on with it: if it does not begin with the one, which
   nothing else can be, what it is as a future is made anew. */
static int
give_to_loop(PyObject *task, FirstStep *first, PyObject *loop)
{
    if (((Future *)task)->loop == (PyObject *)first) {
        Py_SETREF(((Future *)task)->loop, Py_NewRef(loop));
        return 0;
    }
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

/* The same, and let no task be the current one meanwhile; `current` is borrowed from the tasks, or NULL. */
static int
step_outside(PyObject *loop, PyObject *current, PyObject *context, PyObject *step)
{
    if (current == NULL) {
        return take_first_step(context, step);
    }
    Py_INCREF(current);
    int result = PyDict_DelItem(the_current_tasks, loop) < 0 ? -1 : take_first_step(context, step);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyDict_SetItem(the_current_tasks, loop, current) < 0) {
        result = -1;
    }
    if (type != NULL) {
        PyErr_Restore(type, value, traceback);
    }
    Py_DECREF(current);
    return result;
}

PyObject *
begin_task(Lane *lane, PyObject *context, PyObject *coroutine)
{
    PyObject *keywords = take_keywords(lane->loop);
    FirstStep *first = keywords == NULL ? NULL : (FirstStep *)PyDict_GetItemWithError(keywords, str_loop);
    if (first == NULL) {
        Py_XDECREF(keywords);
        return NULL;
    }
    first->loop = lane->loop;
    PyObject *task = make_task(keywords, context, coroutine);
    PyObject *step = first->step;
    first->step = first->loop = NULL;
    if (task != NULL && step == NULL) {
        PyErr_SetString(PyExc_SystemError, "a task of asyncio asked for no first step");
    }
    if (task != NULL && (step == NULL || give_to_loop(task, first, lane->loop) < 0)) {
        Py_CLEAR(task);
    }
    Py_DECREF(keywords); /* others may take them again: the step may want them */
    if (task != NULL) {
        PyObject *current = PyDict_GetItemWithError(the_current_tasks, lane->loop);
        if (PyErr_Occurred() || step_outside(lane->loop, current, context, step) < 0) {
            Py_CLEAR(task);
        }
    }
    Py_XDECREF(step);
    return task;
}

#endif
