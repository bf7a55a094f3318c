/* One packet that came: an answer for whoever waits, or a request for its handler. What is not plain is handed on. */

#include "lane.h"
#include "values.h"

#include <string.h>

/* Bytes of a request that is read before its caller is known to be admitted: as in Session.receive_packet. Of a longer
   one it is found out meanwhile that it is plain, and nothing is made of it. */
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

/* Whether all was read, and each descriptor that came is referred to. */
static bool
is_whole(const Reader *reader, PyObject *fds)
{
    return reader->at == reader->end && reader->referred == ((uint32_t)1 << PyList_GET_SIZE(fds)) - 1;
}

/* Give a RESPONSE, and the descriptors in the list `fds`, to whoever waits for it. Returns 1 if it did, 0 if the packet
 * is Python's, -1 on an exception. */
static int
take_response(Lane *self, Reader *reader, PyObject *fds)
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
    PyObject *response = NULL, *result = NULL, *told = NULL;
    PyObject *waiter = Py_XNewRef(PyDict_GetItemWithError(self->calls, call_id));
    if (waiter == NULL || (result = read_value(reader)) == NULL || !is_whole(reader, fds)) {
        taken = PyErr_Occurred() ? -1 : 0;
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
    int is_done = is_future_done(waiter);
    if (is_done < 0) {
        goto done;
    }
    if (is_done) { /* the call was given up, and its task has not run since */
        if (close_few(fds) < 0) {
            goto done;
        }
    } else if ((told = PyObject_CallMethodOneArg(waiter, str_set_result, response)) == NULL) {
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
    Py_XDECREF(response);
    Py_XDECREF(told);
    return taken;
}

/* ---- Requests of the other side ---- */

/* A request: `deadline` is NULL if it has none, `fds` is a list. All but `fds` and `caller` are owned here. */
typedef struct {
    PyObject *call_id, *method, *params, *deadline, *fds, *caller, *entry;
} Asked;

/* Return it as Session has it. */
static PyObject *
new_request(const Asked *asked)
{
    PyObject *request = copy_of_struct(the_blank_request, NULL);
    if (request == NULL) {
        return NULL;
    }
    set_slot(request, request_call_id, asked->call_id);
    set_slot(request, request_method, asked->method);
    set_slot(request, request_params, asked->params);
    set_slot(request, request_fds, asked->fds);
    if (asked->deadline != NULL || PyList_GET_SIZE(asked->fds) > 0) {
        set_slot(request, request_is_plain, Py_False);
    }
    if (asked->deadline != NULL) {
        PyObject *options = PyObject_CallOneArg(the_Options, asked->deadline);
        if (options == NULL) {
            Py_DECREF(request);
            return NULL;
        }
        set_slot(request, request_options, options);
        Py_DECREF(options);
    }
    return request;
}

/* Whether a request may be begun here: its handler is a coroutine function, and its deadline has not passed, which may
   have happened while the policy was asked. */
static bool
may_begin(const Asked *asked)
{
    return slot(asked->entry, entry_is_native) == Py_True &&
           (asked->deadline == NULL || PyLong_AsLongLong(asked->deadline) > monotonic_ns());
}

/* Take a request that was admitted: start its handler, or have Python do so, or refuse it. */
static int
take_admitted(Lane *self, const Asked *asked)
{
    int result = -1;
    PyObject *request = new_request(asked);
    if (request == NULL || PyDict_SetItem(self->requests, asked->call_id, Py_None) < 0) {
        goto done;
    }
    set_slot(self->session, session__was_asked, Py_True);
    set_slot(self->link, link_quiet_sweeps, zero);
    if (may_begin(asked)) {
        result = start_handler(self, request, asked->entry, asked->caller, asked->deadline);
    } else {
        PyObject *told =
            PyObject_CallMethodObjArgs(self->dispatcher, str_request_received, request, asked->caller, NULL);
        Py_XDECREF(told);
        result = told == NULL ? -1 : 0;
    }
done:
    Py_XDECREF(request);
    return result;
}

/* Refuse a request that was not admitted: the policy was asked, and is not asked again. */
static int
refuse(Lane *self, const Asked *asked)
{
    if (PyList_GET_SIZE(asked->fds) > 0) {
        close_owned(asked->fds);
        if (PyErr_Occurred()) {
            return -1;
        }
    }
    PyObject *told =
        PyObject_CallMethodObjArgs(self->link, str_request_denied, asked->call_id, asked->method, asked->caller, NULL);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

/* Whether there is room for the descriptors of a request; if not, Python is to say so. -1 on an exception. */
static int
has_room(Lane *self)
{
    PyObject *lack = PyObject_CallMethodNoArgs(self->dispatcher, str_lack_of_descriptors);
    Py_XDECREF(lack);
    return lack == NULL ? -1 : lack == Py_None;
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

/* Read the options of a request, which hold nothing but a deadline. False for all else. */
static bool
read_deadline(Reader *reader, uint64_t *deadline)
{
    const char *text;
    Py_ssize_t size;
    if (reader->at == reader->end || *reader->at++ != MAP_OF_ONE || !read_text(reader, &text, &size) ||
        size != (Py_ssize_t)strlen("deadline") || memcmp(text, "deadline", (size_t)size) != 0) {
        return false;
    }
    return read_uint64(reader, deadline) && *deadline <= INT64_MAX;
}

/* Read what comes after the method, if all of it is plain and every descriptor is referred to. False for all else, with
   or without an exception. */
static bool
read_rest(Reader *reader, bool has_options, Asked *asked)
{
    uint64_t deadline;
    asked->params = read_list(reader);
    if (asked->params == NULL) {
        return false;
    }
    if (has_options) {
        if (!read_deadline(reader, &deadline)) {
            return false;
        }
        asked->deadline = PyLong_FromUnsignedLongLong(deadline);
        if (asked->deadline == NULL) {
            return false;
        }
    }
    return is_whole(reader, asked->fds);
}

/* Whether all that comes after the method is plain, has no references, and can be read once the caller is admitted. */
static bool
pass_rest(Reader reader, bool has_options)
{
    uint64_t deadline;
    return reader.fds == NULL && reader.at != reader.end && is_list(*reader.at) && pass_value(&reader) &&
           (!has_options || read_deadline(&reader, &deadline)) && reader.at == reader.end;
}

/* Whether a request may be taken now, as far as is known before it is read. */
static bool
may_take(Lane *self, PyObject *caller)
{
    return self->dispatcher != NULL && slot(self->link, link_handler) == self->dispatcher && caller != Py_None &&
           slot(self->session, session_closing_sent) == Py_False && slot(self->link, link_writing_paused) == Py_False &&
           PyDict_GET_SIZE(self->requests) < self->most_calls &&
           is_below(self->held, calls_kind, slot(self->account, account_most_calls)) &&
           is_below(self->total, calls_kind, slot(self->account, account_most_calls_of_all));
}

/* Take a REQUEST, which has options or not. Returns 1 if it was, 0 if the packet is Python's, -1 on an exception. */
static int
take_request(Lane *self, Reader *reader, PyObject *caller, PyObject *fds, bool has_options)
{
    bool is_long = reader->end - reader->at > GLANCE - 2;
    uint32_t id;
    const char *text;
    Py_ssize_t size;
    if (!may_take(self, caller) || !read_uint32(reader, &id) || !read_text(reader, &text, &size)) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int taken = -1, room;
    PyObject *policy = NULL, *admitted = NULL;
    Asked asked = {.fds = fds, .caller = caller};
    asked.call_id = PyLong_FromUnsignedLong(id);
    asked.method = name_of(self, text, size);
    if (asked.method == NULL && asked.call_id != NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        taken = 0;
    }
    if (asked.method == NULL || asked.call_id == NULL) {
        goto done;
    }
    asked.entry = Py_XNewRef(PyDict_GetItemWithError(self->entries, asked.method));
    if (asked.entry == NULL || (PyObject *)Py_TYPE(asked.entry) != the_Entry ||
        slot(asked.entry, entry_is_immediate) == Py_True || PyDict_Contains(self->requests, asked.call_id) != 0 ||
        !(is_long ? pass_rest(*reader, has_options) : read_rest(reader, has_options, &asked))) {
        taken = PyErr_Occurred() ? -1 : 0;
        goto done;
    }
    if (PyList_GET_SIZE(fds) > 0 && (room = has_room(self)) <= 0) {
        taken = room;
        goto done;
    }
    policy = Py_NewRef(slot(asked.entry, entry_policy)); /* it is that of Session, whose table is made of these */
    admitted = PyObject_CallMethodOneArg(policy, str_admits, caller);
    int verdict = admitted == NULL ? -1 : PyObject_IsTrue(admitted);
    if (verdict < 0) {
        goto done;
    }
    if (self->has_ended) { /* the policy ended the connection */
        close_owned(fds);
        taken = PyErr_Occurred() ? -1 : 1;
    } else if (verdict > 0 && is_long && !read_rest(reader, has_options, &asked)) {
        taken = PyErr_Occurred() ? -1 : 0;
    } else if (verdict > 0) {
        taken = take_admitted(self, &asked) < 0 ? -1 : 1;
    } else {
        taken = refuse(self, &asked) < 0 ? -1 : 1;
    }
done:
    Py_XDECREF(asked.call_id);
    Py_XDECREF(asked.method);
    Py_XDECREF(asked.params);
    Py_XDECREF(asked.deadline);
    Py_XDECREF(asked.entry);
    Py_XDECREF(policy);
    Py_XDECREF(admitted);
    return taken;
}

/* ---- Packets ---- */

/* Have Python take a packet. */
static int
hand_on(Lane *self, const uint8_t *data, Py_ssize_t size, PyObject *caller, PyObject *fds)
{
    PyObject *packet = PyBytes_FromStringAndSize((const char *)data, size), *told = NULL;
    PyObject *protocol = Py_XNewRef(slot(self->intake, intake_protocol));
    if (packet != NULL && protocol != NULL) {
        told = PyObject_CallMethodObjArgs(protocol, str_packet_received, packet, fds, caller, NULL);
    }
    Py_XDECREF(packet);
    Py_XDECREF(protocol);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

/* Take a packet that is plain: 1 if it was taken, 0 if it is Python's, -1 on an exception. */
static int
take_if_plain(Lane *self, const uint8_t *data, Py_ssize_t size, PyObject *caller, PyObject *fds)
{
    bool comes_alone = PyList_GET_SIZE(fds) == 0;
    Reader reader = {data + 2, data + size, self->most_depth - 1, comes_alone ? NULL : fds, 0};
    if (!comes_alone && book_owned(self, fds) < 0) {
        return -1;
    }
    if (data[1] == RESPONSE && data[0] == ARRAY_OF_FOUR) {
        return take_response(self, &reader, fds);
    }
    if (data[1] != REQUEST) {
        return 0;
    }
    return take_request(self, &reader, caller, fds, data[0] == ARRAY_OF_FIVE);
}

/* End the connection because of what was raised meanwhile. 1 if that is all, -1 if it goes further. */
static int
fail(PyObject *carrier)
{
    PyObject *exc = caught();
    if (exc == NULL) {
        return -1;
    }
    PyObject *what = PyUnicode_FromString("the protocol's packet_received failed");
    PyObject *told = what == NULL ? NULL : call_handling(exc, carrier, str_fail, exc, what, NULL);
    Py_DECREF(exc);
    Py_XDECREF(what);
    Py_XDECREF(told);
    return told == NULL ? -1 : 1;
}

int
take_packet(Lane *self, Py_ssize_t size, PyObject *sender, PyObject *came)
{
    uint8_t data[MOST_BYTES]; /* out of the buffer, which all connections of the thread use */
    int taken = 0;            /* a caller of None is nobody whom the kernel names */
    PyObject *caller = Py_NewRef(sender), *carrier = Py_NewRef(self->carrier);
    PyObject *fds = came == NULL ? PyList_New(0) : Py_NewRef(came);
    const uint8_t *packet = self->buffer.buf;
    if (fds == NULL) {
        taken = -1;
    } else if (
        size <= MOST_BYTES && size > 3 && (packet[0] == ARRAY_OF_FOUR || packet[0] == ARRAY_OF_FIVE) &&
        slot(self->intake, intake_protocol) == self->link) {
        memcpy(data, packet, (size_t)size);
        packet = data;
        taken = take_if_plain(self, data, size, caller, fds);
    }
    if (taken == 0) {
        taken = hand_on(self, packet, size, caller, fds);
    }
    if (taken < 0) {
        if (came != NULL) {
            close_owned(came);
        }
        taken = fail(carrier);
    }
    Py_DECREF(caller);
    Py_XDECREF(fds);
    Py_DECREF(carrier);
    return taken;
}
