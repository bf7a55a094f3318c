/* See names.h. */

#include "names.h"

#include <stdarg.h>
#include <structmember.h>
#include <time.h>

#define DEFINE_SLOT(class, name, attribute) Slot name##_##attribute;
SLOTS(DEFINE_SLOT)

#define DEFINE_OBJECT(name) PyObject *the_##name;
OBJECTS(DEFINE_OBJECT)

#define DEFINE_STRING(name) PyObject *str_##name;
STRINGS(DEFINE_STRING)

PyObject *zero, *one, *minus_one, *no_arguments;
PyCFunction number_of_socket, copy_of_struct, done_of_future;
Py_ssize_t calls_kind, small_blocks;
bool is_bound;

Slot
find_slot(PyObject *type, const char *name)
{
    PyObject *found = PyObject_GetAttrString(type, name);
    if (found == NULL) {
        return -1;
    }
    Slot offset = -1;
    if (Py_IS_TYPE(found, &PyMemberDescr_Type) && ((PyMemberDescrObject *)found)->d_member->type == T_OBJECT_EX) {
        offset = ((PyMemberDescrObject *)found)->d_member->offset;
    } else {
        PyErr_Format(PyExc_TypeError, "%R has no slot %s", type, name);
    }
    Py_DECREF(found);
    return offset;
}

PyCFunction
find_method(PyObject *type, const char *name)
{
    PyObject *found = PyObject_GetAttrString(type, name);
    if (found == NULL) {
        return NULL;
    }
    PyCFunction method = NULL;
    if (Py_IS_TYPE(found, &PyMethodDescr_Type) && ((PyMethodDescrObject *)found)->d_method->ml_flags == METH_NOARGS) {
        method = ((PyMethodDescrObject *)found)->d_method->ml_meth;
    } else {
        PyErr_Format(PyExc_TypeError, "%R has no method %s that is built in", type, name);
    }
    Py_DECREF(found);
    return method;
}

/* What is in the dict; borrowed. */
static PyObject *
item(PyObject *objects, const char *name)
{
    PyObject *found = PyDict_GetItemString(objects, name);
    if (found == NULL) {
        PyErr_SetString(PyExc_KeyError, name);
    }
    return found;
}

int
make_constants(void)
{
#define MAKE_STRING(name) \
    if (str_##name == NULL && (str_##name = PyUnicode_InternFromString(#name)) == NULL) { \
        return -1; \
    }
    STRINGS(MAKE_STRING)
#define MAKE(constant, made) \
    if ((constant) == NULL && ((constant) = (made)) == NULL) { \
        return -1; \
    }
    MAKE(no_arguments, PyTuple_New(0))
    MAKE(zero, PyLong_FromLong(0))
    MAKE(one, PyLong_FromLong(1))
    MAKE(minus_one, PyLong_FromLong(-1))
    return 0;
}

/* Look for everything, and keep it only if all is there: what was bound before is still used if something is not. */
static int
bind_all(PyObject *objects)
{
#define COUNT_OBJECT(name) +1
#define COUNT_SLOT(class, name, attribute) +1
    PyObject *found[OBJECTS(COUNT_OBJECT)];
    Slot slots[SLOTS(COUNT_SLOT)];
    size_t at = 0;
#define FIND_OBJECT(name) \
    if ((found[at++] = item(objects, #name)) == NULL) { \
        return -1; \
    }
    OBJECTS(FIND_OBJECT)
    at = 0;
#define FIND_SLOT(class, name, attribute) \
    if ((slots[at++] = find_slot(item(objects, #class), #attribute)) < 0) { \
        return -1; \
    }
    SLOTS(FIND_SLOT)
    PyCFunction number = find_method(item(objects, "Socket"), "fileno");
    PyCFunction copy = number == NULL ? NULL : find_method(item(objects, "HandledCall"), "__copy__");
    Py_ssize_t kind = copy == NULL ? -1 : PyLong_AsSsize_t(item(objects, "calls_kind"));
    Py_ssize_t blocks = kind < 0 ? -1 : PyLong_AsSsize_t(item(objects, "small_blocks"));
    if (blocks < 0) {
        return -1;
    }
    PyCFunction done = find_method(item(objects, "Future"), "done");
    if (done == NULL) {
        PyErr_Clear(); /* it is asked by its name */
    }
    at = 0;
#define KEEP_SLOT(class, name, attribute) name##_##attribute = slots[at++];
    SLOTS(KEEP_SLOT)
    number_of_socket = number;
    copy_of_struct = copy;
    done_of_future = done;
    calls_kind = kind;
    small_blocks = blocks;
    at = 0;
#define KEEP_OBJECT(name) Py_XSETREF(the_##name, Py_NewRef(found[at++]));
    OBJECTS(KEEP_OBJECT)
    return 0;
}

PyObject *
bind_names(PyObject *Py_UNUSED(module), PyObject *objects)
{
    if (!PyDict_Check(objects)) {
        PyErr_SetString(PyExc_TypeError, "bind takes a dict of the objects by name");
        return NULL;
    }
    if (bind_all(objects) < 0) {
        return NULL;
    }
    is_bound = true;
    Py_RETURN_NONE;
}

static int64_t stands_at; /* what the clock tells, if it is not to go; 0 if it goes */

PyObject *
stop_clock(PyObject *Py_UNUSED(module), PyObject *nanoseconds)
{
    int64_t at = PyLong_AsLongLong(nanoseconds);
    if (at == -1 && PyErr_Occurred()) {
        return NULL;
    }
    stands_at = at;
    Py_RETURN_NONE;
}

int64_t
monotonic_ns(void)
{
    if (stands_at != 0) {
        return stands_at;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

double
now(void)
{
    return (double)monotonic_ns() * 1e-9;
}

/* Add numbers; most are small, and counted up or down. */
static PyObject *
add(PyObject *number, PyObject *amount)
{
    if (PyLong_CheckExact(number) && (amount == one || amount == minus_one)) {
        int overflow;
        long before = PyLong_AsLongAndOverflow(number, &overflow);
        if (!overflow && before > LONG_MIN && before < LONG_MAX) {
            return PyLong_FromLong(amount == one ? before + 1 : before - 1);
        }
    }
    return PyNumber_Add(number, amount);
}

int
add_to_item(PyObject *list, Py_ssize_t index, PyObject *amount)
{
    if (!PyList_CheckExact(list) || index >= PyList_GET_SIZE(list)) {
        PyErr_SetString(PyExc_SystemError, "a table of counts is not as it was");
        return -1;
    }
    PyObject *sum = add(PyList_GET_ITEM(list, index), amount);
    return sum == NULL ? -1 : PyList_SetItem(list, index, sum);
}

int
add_to_slot(PyObject *object, Slot offset, PyObject *amount)
{
    PyObject *sum = add(slot(object, offset), amount);
    if (sum == NULL) {
        return -1;
    }
    set_slot(object, offset, sum);
    Py_DECREF(sum);
    return 0;
}

int
is_future_done(PyObject *future)
{
    PyObject *told = Py_TYPE(future) == (PyTypeObject *)the_Future && done_of_future != NULL
                         ? done_of_future(future, NULL)
                         : PyObject_CallMethodNoArgs(future, str_done);
    Py_XDECREF(told);
    return told == NULL ? -1 : told == Py_True;
}

PyObject *
caught_any(void)
{
    if (PyErr_Occurred() == NULL) { /* so it is of a frame of 3.13 that had no memory as it raised something */
        PyErr_NoMemory();
    }
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace != NULL) {
        PyException_SetTraceback(value, trace);
    }
    Py_DECREF(type);
    Py_XDECREF(trace);
    return value;
#endif
}

PyObject *
caught(void)
{
    return PyErr_ExceptionMatches(PyExc_Exception) ? caught_any() : NULL;
}

PyObject *
call_handling(PyObject *exc, PyObject *object, PyObject *method, ...)
{
    PyObject *parts[6] = {object};
    size_t count = 1;
    va_list rest;
    va_start(rest, method);
    for (PyObject *part; count < 6 && (part = va_arg(rest, PyObject *)) != NULL; count++) {
        parts[count] = part;
    }
    va_end(rest);
    PyObject *before = PyErr_GetHandledException();
    PyErr_SetHandledException(exc);
    PyObject *told = PyObject_VectorcallMethod(method, parts, count, NULL);
    PyErr_SetHandledException(before);
    Py_XDECREF(before);
    return told;
}
