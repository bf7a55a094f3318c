/* Descriptors that came with a packet: owned by objects of Python as soon as they are here, and before anything else.
 */

#include "lane.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Return the owner of a descriptor that `sender`, a uid or None, sent, as received_fd does; it closes it when it goes.
   NULL with an exception; then the descriptor is still the caller's. */
static PyObject *
own(int fd, PyObject *sender)
{
    PyTypeObject *type = (PyTypeObject *)the_OwnedFd;
    PyObject *number = PyLong_FromLong(fd), *generation = PyObject_GetAttr(the_forks, str_generation);
    PyObject *owned = number == NULL || generation == NULL ? NULL : type->tp_alloc(type, 0);
    if (owned != NULL) {
        set_slot(owned, owned__generation, generation);
        set_slot(owned, owned__sender, sender);
        set_slot(owned, owned__booked, the_nowhere);
        set_slot(owned, owned__fd, number);
    }
    Py_XDECREF(number);
    Py_XDECREF(generation);
    return owned;
}

/* Have the closer see the highest number that is taken, and end the wake-up if there is little room, as Intake does. */
static int
look_for_room(Lane *lane, PyObject *last)
{
    PyObject *told = PyObject_CallMethodOneArg(the_closer, str_saw, slot(last, owned__fd));
    PyObject *careful = told == NULL ? NULL : PyObject_GetAttr(the_closer, str_careful);
    Py_XDECREF(told);
    if (careful != NULL && careful != Py_False) {
        Py_SETREF(careful, PyObject_CallMethodNoArgs(lane->intake, str_end_wakeup));
    }
    Py_XDECREF(careful);
    return careful == NULL ? -1 : 0;
}

PyObject *
own_descriptors(Lane *lane, const Arrival *arrival)
{
    PyObject *fds = PyList_New(0), *sender = NULL;
    int owned = 0;
    if (fds == NULL) {
        goto failed;
    }
    sender = lane->names_senders && arrival->sender != Py_None ? PyObject_GetAttr(arrival->sender, str_uid)
                                                               : Py_XNewRef(slot(lane->inbox, inbox_uid));
    for (; sender != NULL && owned < arrival->count; owned++) {
        PyObject *one_of_them = own(arrival->fds[owned], sender);
        if (one_of_them == NULL) {
            goto failed;
        }
        int failed = PyList_Append(fds, one_of_them);
        Py_DECREF(one_of_them); /* if it is not in the list, this closes it */
        if (failed) {
            owned++;
            goto failed;
        }
    }
    if (sender == NULL || look_for_room(lane, PyList_GET_ITEM(fds, arrival->count - 1)) < 0) {
        goto failed;
    }
    Py_DECREF(sender);
    return fds;
failed:
    for (; owned < arrival->count; owned++) {
        close(arrival->fds[owned]);
    }
    Py_XDECREF(sender);
    if (fds != NULL) {
        close_owned(fds);
        Py_DECREF(fds);
    }
    return NULL;
}

int
book_owned(Lane *lane, PyObject *fds)
{
    PyObject *booked = slot(lane->account, account_fds);
    for (Py_ssize_t index = 0; index < PyList_GET_SIZE(fds); index++) {
        PyObject *owned = PyList_GET_ITEM(fds, index);
        set_slot(owned, owned__booked, booked);
        if (PySet_Add(booked, slot(owned, owned__fd)) < 0) {
            return -1;
        }
    }
    return 0;
}

void
close_owned(PyObject *fds)
{
    PyObject *raised = PyErr_Occurred() ? caught_any() : NULL;
    PyObject *told = PyObject_CallOneArg(the_close_all, fds);
    Py_XDECREF(told);
    if (raised != NULL) {
        PyErr_Clear(); /* what came first says more */
        PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
        Py_DECREF(raised);
    }
}

/* Whether closing a descriptor surely takes no time, as seqrpc.kernel.closing.closes_at_once tells by its name, which
   is the kernel's own word, and for which nobody else is asked. -1 with an exception. */
static int
closes_at_once(PyObject *number, int fd)
{
    char path[32], name[64]; /* longer ones are of files */
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(path, name, sizeof name);
    if (size <= 0) {
        return 0;
    }
#define BEGINS_WITH(text) (size >= (ssize_t)strlen(text) && memcmp(name, text, strlen(text)) == 0)
    if (!BEGINS_WITH("/memfd:") && !BEGINS_WITH("/dev/") && !BEGINS_WITH("anon_inode:")) {
        return BEGINS_WITH("pipe:[");
    }
    PyObject *text = PyUnicode_DecodeFSDefaultAndSize(name, size);
    PyObject *told = text == NULL ? NULL : PyObject_CallFunctionObjArgs(the_is_quick, number, text, NULL);
    int quick = told == NULL ? -1 : PyObject_IsTrue(told);
    Py_XDECREF(text);
    Py_XDECREF(told);
    return quick;
}

/* Have a thread close a descriptor. It is in the closer's hands before anything of Python runs. */
static int
hand_over(PyObject *owned)
{
    PyObject *inbox = PyObject_GetAttr(the_closer, str__inbox), *told = NULL;
    PyObject *work = PyTuple_Pack(3, slot(owned, owned__fd), Py_None, slot(owned, owned__sender));
    if (inbox != NULL && work != NULL) {
        told = PyObject_CallMethodOneArg(inbox, str_append, work);
    }
    if (told != NULL) {
        set_slot(owned, owned__fd, minus_one);
        Py_SETREF(told, PyObject_CallMethodNoArgs(the_closer, str_tend));
    }
    Py_XDECREF(inbox);
    Py_XDECREF(work);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

/* Close a descriptor that came, if it is still owned, as OwnedFd.close does. */
static int
close_one(PyObject *owned)
{
    PyObject *number = slot(owned, owned__fd);
    long fd = number == NULL ? -1 : PyLong_AsLong(number);
    if (fd < 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *generation = PyObject_GetAttr(the_forks, str_generation);
    if (generation == NULL) {
        return -1;
    }
    bool is_of_fork = slot(owned, owned__generation) != generation; /* numbers so small are the same objects */
    Py_DECREF(generation);
    if (is_of_fork) {
        PyObject *told = PyObject_CallMethodNoArgs(owned, str_close);
        Py_XDECREF(told);
        return told == NULL ? -1 : 0;
    }
    int at_once = closes_at_once(number, (int)fd);
    if (at_once < 0 || PySet_Discard(slot(owned, owned__booked), number) < 0) {
        return -1;
    }
    if (!at_once) {
        return hand_over(owned);
    }
    set_slot(owned, owned__fd, minus_one);
    close((int)fd); /* whatever it says, the number is free again */
    return 0;
}

int
close_few(PyObject *fds)
{
    while (PyList_GET_SIZE(fds) > 0) {
        Py_ssize_t last = PyList_GET_SIZE(fds) - 1;
        PyObject *owned = Py_NewRef(PyList_GET_ITEM(fds, last));
        int failed = PyList_SetSlice(fds, last, last + 1, NULL) < 0 || close_one(owned) < 0;
        Py_DECREF(owned);
        if (failed && !PyErr_ExceptionMatches(PyExc_OSError)) {
            return -1;
        }
        PyErr_Clear();
    }
    return 0;
}
