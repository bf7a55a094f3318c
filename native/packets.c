/* One packet that came: an answer for whoever waits, or a request for its handler. What is not plain is handed on. */

#include "lane.h"
#include "values.h"

#include <string.h>

/* Bytes of a request that is read before its caller is known to be admitted: as in Session.receive_packet. */
#define GLANCE 256
/* Bytes of a method's name that is remembered until the next. */
#define MOST_NAME 200

/* Whether a list of numbers has less than a bound at a place, which Python keeps as an int, or as a float without end.
 */
static bool
is_below(PyObject *list, Py_ssize_t index, PyObject *bound)
{
    if (index >= PyList_GET_SIZE(list) || bound == NULL) {
        return false;
    }
    PyObject *number = PyList_GET_ITEM(list, index);
    if (PyLong_CheckExact(number) && PyLong_CheckExact(bound)) {
        int overflow;
        long most = PyLong_AsLongAndOverflow(bound, &overflow), has = PyLong_AsLongAndOverflow(number, &overflow);
        return !overflow && has < most;
    }
    return PyObject_RichCompareBool(number, bound, Py_LT) == 1;
}

/* ---- Answers to calls of this side ---- */

/* Give a RESPONSE to whoever waits for it. Returns 1 if it did, 0 if the packet is Python's, -1 on an exception. */
static int
take_response(Lane *self, Reader *reader)
{
    uint32_t id;
    if (!read_uint32(reader, &id) || reader->at == reader->end || *reader->at != 0xc0) {
        return 0;
    }
    reader->at++;
    PyObject *call_id = PyLong_FromUnsignedLong(id);
    if (call_id == NULL) {
        return -1;
    }
    int taken = -1;
    PyObject *response = NULL, *result = NULL, *fds = NULL, *told = NULL;
    PyObject *waiter = Py_XNewRef(PyDict_GetItemWithError(self->calls, call_id));
    if (waiter == NULL || (result = read_value(reader)) == NULL || reader->at != reader->end) {
        taken = PyErr_Occurred() ? -1 : 0;
        goto done;
    }
    fds = PyList_New(0);
    if (fds == NULL) {
        goto done;
    }
    response = copy_of_struct(the_blank_response, NULL);
    if (response == NULL) {
        goto done;
    }
    set_slot(response, response_call_id, call_id);
    set_slot(response, response_result, result);
    set_slot(response, response_fds, fds);
    if (PyDict_DelItem(self->calls, call_id) < 0) {
        goto done;
    }
    set_slot(self->link, link_quiet_sweeps, zero);
    PyObject *is_done = Py_TYPE(waiter) == (PyTypeObject *)the_Future && done_of_future != NULL
                            ? done_of_future(waiter, NULL)
                            : PyObject_CallMethodNoArgs(waiter, str_done);
    if (is_done == NULL) {
        goto done;
    }
    Py_DECREF(is_done); /* if it is, the call was given up, and its task has not run since: nothing is to be closed */
    if (is_done != Py_True && (told = PyObject_CallMethodOneArg(waiter, str_set_result, response)) == NULL) {
        goto done;
    }
    if (slot(self->turns, turns_waiting) != zero) { /* the packet may have made room for a call that waits */
        Py_XSETREF(told, PyObject_CallMethodNoArgs(self->turns, str_next));
        if (told == NULL) {
            goto done;
        }
    }
    taken = 1;
done:
    Py_DECREF(call_id);
    Py_XDECREF(waiter);
    Py_XDECREF(result);
    Py_XDECREF(fds);
    Py_XDECREF(response);
    Py_XDECREF(told);
    return taken;
}

/* ---- Requests of the other side ---- */

/* Whether a handler can be given these arguments as they came. */
static bool
are_exact(PyObject *entry, PyObject *params)
{
    PyObject *exact = slot(entry, entry_exact), *untyped = slot(entry, entry_untyped);
    Py_ssize_t count = PyList_GET_SIZE(params);
    if (untyped != NULL && PyLong_CheckExact(untyped) && PyLong_AsSsize_t(untyped) == count) {
        return true;
    }
    if (exact == NULL || !PyList_CheckExact(exact) || PyList_GET_SIZE(exact) != count) {
        return false;
    }
    for (Py_ssize_t index = 0; index < count; index++) {
        if ((PyObject *)Py_TYPE(PyList_GET_ITEM(params, index)) != PyList_GET_ITEM(exact, index)) {
            return false;
        }
    }
    return true;
}

/* Take a request that was admitted: start its handler, or have Python convert its arguments and start it. */
static int
take_admitted(Lane *self, PyObject *call_id, PyObject *method, PyObject *params, PyObject *entry, PyObject *caller)
{
    int result = -1;
    PyObject *fds = PyList_New(0), *request = NULL;
    if (fds == NULL || PyDict_SetItem(self->requests, call_id, Py_None) < 0) {
        goto done;
    }
    set_slot(self->session, session__was_asked, Py_True);
    set_slot(self->link, link_quiet_sweeps, zero);
    request = copy_of_struct(the_blank_request, NULL);
    if (request == NULL) {
        goto done;
    }
    set_slot(request, request_call_id, call_id);
    set_slot(request, request_method, method);
    set_slot(request, request_params, params);
    set_slot(request, request_fds, fds);
    if (slot(entry, entry_is_native) == Py_True && are_exact(entry, params)) {
        result = start_handler(self, request, call_id, params, entry, caller);
    } else {
        PyObject *told = PyObject_CallMethodObjArgs(self->dispatcher, str_request_received, request, caller, NULL);
        Py_XDECREF(told);
        result = told == NULL ? -1 : 0;
    }
done:
    Py_XDECREF(fds);
    Py_XDECREF(request);
    return result;
}

/* Return the name of a method: the object that the last request had, if it is the same. */
static PyObject *
name_of(Lane *self, const char *text, Py_ssize_t size)
{
    PyObject *last = self->last_name;
    if (last != NULL && PyUnicode_GET_LENGTH(last) == size &&
        memcmp(PyUnicode_1BYTE_DATA(last), text, (size_t)size) == 0) {
        return Py_NewRef(last);
    }
    PyObject *name = PyUnicode_DecodeUTF8(text, size, NULL);
    if (name != NULL && PyUnicode_IS_COMPACT_ASCII(name) && size <= MOST_NAME) {
        Py_XSETREF(self->last_name, Py_NewRef(name));
    }
    return name;
}

/* Take a REQUEST. Returns 1 if it was, 0 if the packet is Python's, -1 on an exception. */
static int
take_request(Lane *self, Reader *reader, PyObject *caller)
{
    uint32_t id;
    const char *text;
    Py_ssize_t size;
    if (self->dispatcher == NULL || slot(self->link, link_handler) != self->dispatcher || caller == Py_None ||
        !read_uint32(reader, &id) || !read_text(reader, &text, &size) ||
        slot(self->session, session_closing_sent) != Py_False || slot(self->link, link_writing_paused) != Py_False ||
        PyDict_GET_SIZE(self->requests) >= self->most_calls ||
        !is_below(self->held, calls_kind, slot(self->account, account_most_calls)) ||
        !is_below(self->total, calls_kind, slot(self->account, account_most_calls_of_all))) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int taken = -1;
    PyObject *params = NULL, *policy = NULL, *entry = NULL, *admitted = NULL;
    PyObject *call_id = PyLong_FromUnsignedLong(id);
    PyObject *method = name_of(self, text, size);
    if (method == NULL && call_id != NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        taken = 0;
    }
    if (method == NULL || call_id == NULL) {
        goto done;
    }
    entry = Py_XNewRef(PyDict_GetItemWithError(self->entries, method));
    if (entry == NULL || (PyObject *)Py_TYPE(entry) != the_Entry || slot(entry, entry_is_immediate) == Py_True ||
        PyDict_Contains(self->requests, call_id) != 0 || (params = read_list(reader)) == NULL ||
        reader->at != reader->end) {
        taken = PyErr_Occurred() ? -1 : 0;
        goto done;
    }
    policy = Py_NewRef(slot(entry, entry_policy)); /* it is that of Session, whose table is made of these */
    admitted = PyObject_CallMethodOneArg(policy, str_admits, caller);
    if (admitted == NULL) {
        goto done;
    }
    int verdict = PyObject_IsTrue(admitted);
    if (self->has_ended && verdict >= 0) { /* the policy ended the connection */
        taken = 1;
    } else if (verdict > 0) {
        taken = take_admitted(self, call_id, method, params, entry, caller) < 0 ? -1 : 1;
    } else if (verdict == 0) { /* it was asked, and is not asked again */
        PyObject *told = PyObject_CallMethodObjArgs(self->link, str_request_denied, call_id, method, caller, NULL);
        taken = told == NULL ? -1 : 1;
        Py_XDECREF(told);
    }
done:
    Py_XDECREF(call_id);
    Py_XDECREF(method);
    Py_XDECREF(params);
    Py_XDECREF(policy);
    Py_XDECREF(entry);
    Py_XDECREF(admitted);
    return taken;
}

/* ---- Packets ---- */

/* Have Python take a packet that came alone. */
static int
hand_on(Lane *self, const uint8_t *data, Py_ssize_t size, PyObject *caller)
{
    PyObject *packet = PyBytes_FromStringAndSize((const char *)data, size), *fds = PyList_New(0), *told = NULL;
    PyObject *protocol = Py_XNewRef(slot(self->intake, intake_protocol));
    if (packet != NULL && fds != NULL && protocol != NULL) {
        told = PyObject_CallMethodObjArgs(protocol, str_packet_received, packet, fds, caller, NULL);
    }
    Py_XDECREF(packet);
    Py_XDECREF(fds);
    Py_XDECREF(protocol);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

int
take_packet(Lane *self, Py_ssize_t size, PyObject *sender)
{
    uint8_t data[MOST_BYTES]; /* out of the buffer, which all connections of the thread use */
    int taken = 0;            /* a caller of None is nobody whom the kernel names */
    PyObject *caller = Py_NewRef(sender), *carrier = Py_NewRef(self->carrier);
    const uint8_t *packet = self->buffer.buf;
    if (size <= MOST_BYTES && size > 3 && packet[0] == ARRAY_OF_FOUR &&
        slot(self->intake, intake_protocol) == self->link) {
        memcpy(data, packet, (size_t)size);
        Reader reader = {data + 2, data + size, self->most_depth - 1};
        if (data[1] == RESPONSE) {
            taken = take_response(self, &reader);
        } else if (data[1] == REQUEST && size <= GLANCE) {
            taken = take_request(self, &reader, caller);
        }
        packet = data;
    }
    if (taken == 0) {
        taken = hand_on(self, packet, size, caller);
    }
    Py_DECREF(caller);
    PyObject *exc = taken < 0 ? caught() : NULL;
    if (exc != NULL) {
        PyObject *what = PyUnicode_FromString("the protocol's packet_received failed");
        PyObject *told = what == NULL ? NULL : call_handling(exc, carrier, str_fail, exc, what, NULL);
        taken = told == NULL ? -1 : 1;
        Py_DECREF(exc);
        Py_XDECREF(what);
        Py_XDECREF(told);
    }
    Py_DECREF(carrier);
    return taken;
}
