/* The lane: the plainest packets from socket to handler and back, without the interpreter.
 *
 * A lane belongs to one connection and takes what nearly all calls are made of: a REQUEST or a RESPONSE of plain values
 * with nothing attached, for a handler that is an `async def`. What is out of the ordinary in any way goes to Python
 * before anything was done about it, so that the rules stand in one place. Nor does the lane keep any state: whether
 * the connection closes, what is in flight, what a user may have, all stands in Python's objects and is read there each
 * time. What it refers to for as long as the connection lasts never changes: the objects themselves.
 *
 * Python calls `read` as the socket has something, `call` to send a request, and `finish` as a handler has returned.
 */

#include "lane.h"
#include "values.h"

#include <errno.h>
#include <math.h>
#include <stdalign.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Bytes of a request that is read before its caller is known to be admitted: as in Session.receive_packet. */
#define GLANCE 256
/* Bytes of a method's name that is remembered until the next. */
#define MOST_NAME 200
/* Received bytes after which a wake-up ends: as in seqrpc.aio.intake. */
#define WAKEUP_BYTES 32768

#define RECEIVE_FLAGS (MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC)
#define SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL | MSG_EOR)

/* ---- The lane of one connection ---- */

#define MEMBERS(of) \
    of(link) of(session) of(carrier) of(intake) of(inbox) of(sock) of(loop) of(turns) of(account) of(calls) of(requests) \
    of(given_up) of(dispatcher) of(entries) of(policies) of(running) of(starter) of(held) of(total) \
    of(last_name) of(sender)

static int
lane_traverse(PyObject *object, visitproc visit, void *arg)
{
    Lane *self = (Lane *)object;
    Py_VISIT(Py_TYPE(self));
#define VISIT(name) Py_VISIT(self->name);
    MEMBERS(VISIT)
    return 0;
}

static int
lane_clear(PyObject *object)
{
    Lane *self = (Lane *)object;
#define CLEAR(name) Py_CLEAR(self->name);
    MEMBERS(CLEAR)
    PyBuffer_Release(&self->buffer);
    return 0;
}

void
enter(Lane *self)
{
    self->users++;
    Py_INCREF(self);
}

void
leave(Lane *self)
{
    self->users--;
    if (self->has_ended && self->users == 0) {
        lane_clear((PyObject *)self);
    }
    Py_DECREF(self);
}

static void
lane_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    lane_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

/* Set a member to an attribute of an object. */
static int
take_attribute(PyObject **member, PyObject *object, const char *name)
{
    PyObject *found = PyObject_GetAttrString(object, name);
    Py_XSETREF(*member, found);
    return found == NULL ? -1 : 0;
}

/* Set a number to a limit, which may be larger than any number here, and a float without end. */
static int
take_limit(Py_ssize_t *limit, PyObject *object, const char *name)
{
    PyObject *found = PyObject_GetAttrString(object, name);
    if (found == NULL) {
        return -1;
    }
    *limit = PyLong_Check(found) ? PyLong_AsSsize_t(found) : PY_SSIZE_T_MAX;
    Py_DECREF(found);
    if (*limit == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        *limit = PY_SSIZE_T_MAX;
    }
    return 0;
}

static int
check_type(PyObject *object, PyObject *type)
{
    if ((PyObject *)Py_TYPE(object) != type) {
        PyErr_Format(PyExc_TypeError, "%R was expected, got %R", type, Py_TYPE(object));
        return -1;
    }
    return 0;
}

/* Check that a socket is one whose number `number_of_socket` tells. */
static int
check_socket(PyObject *sock)
{
    if (!PyObject_TypeCheck(sock, (PyTypeObject *)the_Socket)) {
        PyErr_Format(PyExc_TypeError, "a socket was expected, got %R", Py_TYPE(sock));
        return -1;
    }
    return 0;
}

static int
take_answering(Lane *self, PyObject *dispatcher)
{
    self->dispatcher = Py_NewRef(dispatcher);
    return take_attribute(&self->entries, dispatcher, "_entries") < 0 ||
                   take_attribute(&self->running, dispatcher, "running") < 0 ||
                   take_attribute(&self->starter, dispatcher, "_starter") < 0 ||
                   check_type(self->running, the_RunningCalls) < 0
               ? -1
               : 0;
}

static int
take_parts(Lane *self, PyObject *link, PyObject *carrier)
{
    PyObject *buffer = NULL, *number = NULL;
    Py_ssize_t most_depth;
    int result = -1;
    self->link = Py_NewRef(link);
    self->carrier = Py_NewRef(carrier);
    PyObject *calls = NULL;
    if (take_attribute(&self->session, link, "session") < 0 || take_attribute(&self->loop, link, "loop") < 0 ||
        take_attribute(&self->account, link, "account") < 0 || take_attribute(&calls, link, "calls") < 0 ||
        take_attribute(&self->turns, calls, "turns") < 0 || take_attribute(&self->intake, carrier, "intake") < 0 ||
        take_attribute(&self->inbox, carrier, "_inbox") < 0 || take_attribute(&self->sock, carrier, "_sock") < 0 ||
        take_attribute(&self->calls, self->session, "calls") < 0 ||
        take_attribute(&self->requests, self->session, "requests") < 0 ||
        take_attribute(&self->given_up, self->session, "given_up") < 0 ||
        take_attribute(&self->policies, self->session, "_policies") < 0 ||
        take_attribute(&self->held, self->account, "held") < 0 ||
        take_attribute(&self->total, self->account, "total") < 0 ||
        take_attribute(&buffer, self->intake, "_buffer") < 0 ||
        PyObject_GetBuffer(buffer, &self->buffer, PyBUF_WRITABLE) < 0) {
        goto done;
    }
    if (check_type(self->session, the_Session) < 0 || check_type(self->carrier, the_Carrier) < 0 ||
        check_type(self->intake, the_Intake) < 0 || check_type(self->inbox, the_Inbox) < 0 ||
        check_type(self->turns, the_Turns) < 0 || check_socket(self->sock) < 0 || check_type(self->account, the_Account) < 0) {
        goto done;
    }
    if (!PyDict_CheckExact(self->calls) || !PyDict_CheckExact(self->requests) || !PySet_Check(self->given_up) ||
        !PyDict_CheckExact(self->policies) || !PyList_CheckExact(self->held) || !PyList_CheckExact(self->total)) {
        PyErr_SetString(PyExc_TypeError, "the tables of a connection are dicts, sets and lists");
        goto done;
    }
    if (take_limit(&self->most_calls, self->session, "_max_calls") < 0 ||
        take_limit(&most_depth, self->session, "_short") < 0) {
        goto done;
    }
    self->most_depth = most_depth < MOST_DEPTH ? (int)most_depth : MOST_DEPTH;
    number = PyObject_GetAttrString(self->intake, "_takes_descriptors");
    if (number == NULL) {
        goto done;
    }
    self->takes_descriptors = PyObject_IsTrue(number);
    Py_SETREF(number, PyObject_GetAttrString(self->inbox, "names_senders"));
    if (number == NULL) {
        goto done;
    }
    self->names_senders = PyObject_IsTrue(number);
    result = 0;
done:
    Py_XDECREF(buffer);
    Py_XDECREF(number);
    Py_XDECREF(calls);
    return result;
}

static PyObject *
lane_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *link, *carrier;
    if ((kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) || !PyArg_ParseTuple(args, "OO:Lane", &link, &carrier)) {
        return NULL;
    }
    if (!is_bound || check_type(link, the_Link) < 0) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_RuntimeError, "nothing was bound");
    }
    Lane *self = (Lane *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    PyObject *handler = slot(link, link_handler);
    if (take_parts(self, link, carrier) < 0 ||
        (handler != NULL && (PyObject *)Py_TYPE(handler) == the_Dispatcher && take_answering(self, handler) < 0)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* ---- Small things ---- */

/* The descriptor of the socket as it is now; -1, with or without an exception, if it has none. */
static int
descriptor(Lane *self)
{
    PyObject *number = number_of_socket(self->sock, NULL);
    if (number == NULL) {
        return -1;
    }
    int fd = (int)PyLong_AsLong(number);
    Py_DECREF(number);
    return fd;
}

bool
send_now(Lane *self, const uint8_t *data, Py_ssize_t size)
{
    int fd = descriptor(self);
    if (fd < 0) {
        PyErr_Clear();
        return false;
    }
    return send(fd, data, (size_t)size, SEND_FLAGS) == size;
}

/* Whether a list of numbers has less than a bound at a place, which Python keeps as an int, or as a float without end. */
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

static bool
is_false(PyObject *value)
{
    return value == Py_False;
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
    if ( PyDict_DelItem(self->calls, call_id) < 0) {
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
    if (last != NULL && PyUnicode_GET_LENGTH(last) == size && memcmp(PyUnicode_1BYTE_DATA(last), text, (size_t)size) == 0) {
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
        !is_false(slot(self->session, session_closing_sent)) || !is_false(slot(self->link, link_writing_paused)) ||
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
    policy = Py_XNewRef(PyDict_GetItemWithError(self->policies, method));
    entry = policy == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(self->entries, method));
    if (entry == NULL || (PyObject *)Py_TYPE(entry) != the_Entry || slot(entry, entry_is_immediate) == Py_True ||
        PyDict_Contains(self->requests, call_id) != 0 || (params = read_list(reader)) == NULL ||
        reader->at != reader->end) {
        taken = PyErr_Occurred() ? -1 : 0;
        goto done;
    }
    admitted = PyObject_CallMethodOneArg(policy, str_admits, caller);
    if (admitted == NULL) {
        goto done;
    }
    int verdict = PyObject_IsTrue(admitted);
    if (self->has_ended) { /* the policy ended the connection */
        taken = 1;
        goto done;
    }
    if (verdict > 0) {
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

/* Take a packet that came alone. Exceptions end the connection, as in Intake. */
static int
take_packet(Lane *self, Py_ssize_t size, PyObject *sender)
{
    uint8_t data[MOST_BYTES]; /* out of the buffer, which all connections of the thread use */
    int taken = 0; /* a caller of None is nobody whom the kernel names */
    PyObject *caller = Py_NewRef(sender), *carrier = Py_NewRef(self->carrier);
    const uint8_t *packet = self->buffer.buf;
    if (size <= MOST_BYTES && size > 3 && packet[0] == ARRAY_OF_FOUR && slot(self->intake, intake_protocol) == self->link) {
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

/* Close descriptors that came and that cannot be handed on. */
static void
close_received(struct msghdr *message)
{
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each != NULL; each = CMSG_NXTHDR(message, each)) {
        if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_RIGHTS) {
            size_t bytes = each->cmsg_len - CMSG_LEN(0);
            for (size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
                int fd;
                memcpy(&fd, CMSG_DATA(each) + at, sizeof fd);
                if (fd >= 0) {
                    close(fd);
                }
            }
        }
    }
}

/* Return what came with a packet as socket.recvmsg tells it: [(level, kind, data), ...]. */
static PyObject *
control_of(struct msghdr *message)
{
    PyObject *control = PyList_New(0);
    if (control == NULL) {
        goto failed;
    }
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each != NULL; each = CMSG_NXTHDR(message, each)) {
        const char *end = (const char *)message->msg_control + message->msg_controllen;
        Py_ssize_t size = (Py_ssize_t)(each->cmsg_len - CMSG_LEN(0));
        Py_ssize_t room = end - (const char *)CMSG_DATA(each);
        if (each->cmsg_len < CMSG_LEN(0) || room < 0) {
            break;
        }
        PyObject *one_of_them = Py_BuildValue(
            "(iiy#)", each->cmsg_level, each->cmsg_type, (const char *)CMSG_DATA(each), size < room ? size : room);
        if (one_of_them == NULL || PyList_Append(control, one_of_them) < 0) {
            Py_XDECREF(one_of_them);
            goto failed;
        }
        Py_DECREF(one_of_them);
    }
    return control;
failed:
    Py_XDECREF(control);
    close_received(message);
    return NULL;
}

/* Whether nothing came with a packet but the name of its sender. */
static bool
tells_sender_only(struct msghdr *message, struct ucred *told)
{
    struct cmsghdr *first = CMSG_FIRSTHDR(message);
    if (first == NULL || first->cmsg_level != SOL_SOCKET || first->cmsg_type != SCM_CREDENTIALS ||
        first->cmsg_len != CMSG_LEN(sizeof *told) || CMSG_NXTHDR(message, first) != NULL) {
        return false;
    }
    memcpy(told, CMSG_DATA(first), sizeof *told);
    return true;
}

/* Return who sent a packet that tells nothing else, as Inbox.take does; borrowed, NULL with an exception. */
static PyObject *
sender_of(Lane *self, Py_ssize_t size, struct msghdr *message, const struct ucred *told)
{
    if (self->sender != NULL && memcmp(told, &self->sender_as_told, sizeof *told) == 0) {
        return self->sender;
    }
    PyObject *control = control_of(message), *taken = NULL, *sender = NULL, *trouble;
    PyObject *take = control == NULL ? NULL : PyObject_GetAttr(self->inbox, str_take);
    if (take != NULL) {
        taken = PyObject_CallFunction(take, "nOi[]", size, control, message->msg_flags);
    }
    if (taken != NULL && PyArg_ParseTuple(taken, "nOO", &size, &sender, &trouble)) {
        self->sender_as_told = *told;
        Py_XSETREF(self->sender, Py_NewRef(sender));
    }
    Py_XDECREF(control);
    Py_XDECREF(take);
    Py_XDECREF(taken);
    return sender == NULL ? NULL : self->sender;
}

/* Receive one packet into the buffer. Returns its size, and `sender`, borrowed; -1 with errno set; -2 if there is more than a plain packet, which
   `rare` tells as (attempt, taken, (size, control, flags, None)), or is NULL with an exception. */
static Py_ssize_t
receive(Lane *self, int fd, Py_ssize_t attempt, Py_ssize_t taken, PyObject **sender, PyObject **rare)
{
    alignas(struct cmsghdr) char control[CMSG_SPACE(253 * sizeof(int)) + 2 * CMSG_SPACE(256) + CMSG_SPACE(sizeof(int))];
    struct iovec place = {self->buffer.buf, (size_t)self->buffer.len - (self->takes_descriptors ? 1 : 0)};
    struct msghdr message = {.msg_iov = &place, .msg_iovlen = 1};
    Py_ssize_t size;
    int flags = 0;
    if (self->takes_descriptors) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        size = recvmsg(fd, &message, RECEIVE_FLAGS);
        flags = message.msg_flags & ~MSG_CMSG_CLOEXEC;
    } else {
        size = recv(fd, self->buffer.buf, (size_t)self->buffer.len, MSG_DONTWAIT | MSG_TRUNC);
        flags = size >= self->buffer.len ? MSG_TRUNC : 0;
    }
    if (size < 0) {
        return -1;
    }
    if (size > 0 && flags == 0) {
        struct ucred told;
        *sender = slot(self->inbox, inbox_peer);
        if (message.msg_controllen == 0) {
            return size;
        }
        if (self->names_senders && tells_sender_only(&message, &told)) {
            *sender = sender_of(self, size, &message, &told);
            *rare = NULL;
            return *sender == NULL ? -2 : size;
        }
    }
    PyObject *came = control_of(&message);
    if (came == NULL) {
        *rare = NULL;
        return -2;
    }
    flags |= self->takes_descriptors ? message.msg_flags : MSG_CMSG_CLOEXEC;
    *rare = Py_BuildValue("(nn(nNiO))", attempt, taken, size, came, flags, Py_None);
    if (*rare == NULL) {
        close_received(&message);
    }
    return -2;
}

/* Receive and take packets; return what `read` returns. */
static PyObject *
read_packets(Lane *self, Py_ssize_t most, double until, Py_ssize_t taken)
{
    for (Py_ssize_t attempt = 0; attempt < most; attempt++) {
        if (self->has_ended || slot(self->intake, intake_is_reading) != Py_True) {
            Py_RETURN_NONE;
        }
        int fd = descriptor(self);
        if (fd == -1 && PyErr_Occurred()) {
            return NULL;
        }
        PyObject *rare = NULL, *sender = NULL;
        Py_ssize_t size = receive(self, fd, attempt, taken, &sender, &rare);
        if (size == -1 && errno == EINTR) {
            if (PyErr_CheckSignals() < 0) {
                return NULL;
            }
            attempt--; /* a signal's handler may have ended the connection: look anew */
            continue;
        }
        if (size == -2) {
            return rare;
        }
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return PyLong_FromSsize_t(attempt);
        }
        if (size < 0) {
            PyObject *error = PyObject_CallFunction(PyExc_OSError, "is", errno, strerror(errno));
            return error == NULL ? NULL : Py_BuildValue("(nnN)", attempt, taken, error);
        }
        if (take_packet(self, size, sender) < 0) {
            return NULL;
        }
        taken += size;
        if (self->has_ended || slot(self->intake, intake__lone_wakeups) != zero || taken >= WAKEUP_BYTES || now() >= until) {
            break;
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(read_doc, "read(most, until, taken)\n--\n\nReceive packets and take them: seqrpc.aio.lane.Lane.");

static PyObject *
lane_read(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Lane *self = (Lane *)object;
    if (count != 3) {
        return PyErr_Format(PyExc_TypeError, "read takes 3 arguments, got %zd", count);
    }
    Py_ssize_t most = PyLong_AsSsize_t(args[0]), taken = PyLong_AsSsize_t(args[2]);
    double until = PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    enter(self);
    PyObject *came = read_packets(self, most, until, taken);
    leave(self);
    return came;
}

/* Add what a wake-up took to the user's share of the turn, as Share.charge does. */
static int
charge(PyObject *share, double seconds, PyObject *loop)
{
    PyObject *told = NULL;
    PyObject *used = PyFloat_FromDouble(PyFloat_AsDouble(slot(share, share_used)) + seconds);
    if (used != NULL && !PyErr_Occurred()) {
        set_slot(share, share_used, used);
        told = PyFloat_AS_DOUBLE(used) < PyFloat_AsDouble(slot(share, share_look_at))
                   ? Py_NewRef(Py_None)
                   : PyObject_CallMethodOneArg(share, str_look, loop);
    }
    Py_XDECREF(used);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

/* Whether a wake-up is to go as Python has it: others of the user have been read, or there is little room for
   descriptors. -1 on an exception. */
static int
is_restrained(Lane *self)
{
    if (slot(slot(self->intake, intake__share), share_crowded) != Py_False) {
        return 1;
    }
    PyObject *careful = PyObject_GetAttr(the_closer, str_careful);
    Py_XDECREF(careful);
    return careful == NULL ? -1 : careful != Py_False;
}

/* Read, and end the wake-up if that is simple: 1 if it was, 0 if it is left to Python with what came, -1 on an exception. */
static int
read_ready(Lane *self, double until, PyObject **came)
{
    Py_ssize_t most = PyObject_Size(slot(self->intake, intake__packets));
    *came = most < 0 ? NULL : read_packets(self, most, until, 0);
    if (*came == NULL) {
        return -1;
    }
    if (self->has_ended) {
        return 1; /* the connection has ended */
    }
    PyObject *lone = slot(self->intake, intake__lone_wakeups);
    if (*came == Py_None) {
        if (lone != zero && add_to_slot(self->intake, intake__lone_wakeups, minus_one) < 0) {
            return -1;
        }
    } else if (PyLong_CheckExact(*came) && slot(self->carrier, carrier_broken) == Py_None) {
        if (*came == one) { /* it is alone: do not look for a second one for a while */
            set_slot(self->intake, intake__lone_wakeups, the_lone_wakeups);
        }
    } else {
        return 0;
    }
    return 1;
}

PyDoc_STRVAR(ready_doc, "ready()\n--\n\nReceive what is there, as the loop calls it: as Intake._read_ready.");

static PyObject *
wake_up(Lane *self)
{
    int restrained = is_restrained(self);
    if (restrained != 0) {
        return restrained < 0 ? NULL : PyObject_CallMethodNoArgs(self->intake, str__read_ready);
    }
    PyObject *share = Py_NewRef(slot(self->intake, intake__share));
    double began = now(), until = INFINITY;
    if (slot(self->intake, intake__lone_wakeups) == zero) {
        PyObject *beginning = PyFloat_FromDouble(began);
        PyObject *end = beginning == NULL ? NULL : PyObject_CallMethodOneArg(share, str_until, beginning);
        until = end == NULL ? -1.0 : PyFloat_AsDouble(end);
        Py_XDECREF(beginning);
        Py_XDECREF(end);
    }
    PyObject *came = NULL, *told = NULL;
    int ended = PyErr_Occurred() ? -1 : read_ready(self, until, &came);
    if (ended > 0) { /* a connection that has ended meanwhile no longer has its share */
        told = charge(share, now() - began, self->loop) < 0 ? NULL : Py_NewRef(Py_None);
    } else if (ended == 0) {
        PyObject *times = Py_BuildValue("(OOOdd)", self, came, share, began, until);
        PyObject *method = times == NULL ? NULL : PyObject_GetAttr(self->intake, str_read_on);
        told = method == NULL ? NULL : PyObject_CallObject(method, times);
        Py_XDECREF(times);
        Py_XDECREF(method);
    }
    Py_DECREF(share);
    Py_XDECREF(came);
    return told;
}

static PyObject *
lane_ready(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Lane *self = (Lane *)object;
    if (self->has_ended) {
        Py_RETURN_NONE;
    }
    enter(self);
    PyObject *told = wake_up(self);
    leave(self);
    return told;
}

/* ---- Calls of this side ---- */

/* Send a request, and return what `call` returns. */
static PyObject *
send_request(Lane *self, PyObject *method, PyObject *params)
{
    if (slot(self->turns, turns_waiting) != zero || !is_false(slot(self->link, link_writing_paused)) ||
        slot(self->carrier, carrier_sends_at_once) != Py_True ||
        PyDict_GET_SIZE(self->calls) >= self->most_calls || PySet_GET_SIZE(self->given_up) != 0 ||
        slot(self->session, session_closing_received) != Py_None || !PyUnicode_CheckExact(method) ||
        !(PyTuple_CheckExact(params) || PyList_CheckExact(params))) {
        Py_RETURN_NONE;
    }
    PyObject *next = slot(self->session, session__next_id);
    if (next == NULL || !PyLong_CheckExact(next)) {
        Py_RETURN_NONE;
    }
    uint8_t data[MOST_BYTES];
    unsigned long id = PyLong_AsUnsignedLong(next);
    if (id > UINT32_MAX) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    Writer writer = {data, data + sizeof data, self->most_depth - 1};
    if (!write_byte(&writer, ARRAY_OF_FOUR) || !write_byte(&writer, REQUEST) || !write_uint32(&writer, (uint32_t)id) ||
        !write_value(&writer, method) || !write_value(&writer, params)) {
        Py_RETURN_NONE;
    }
    PyObject *loop = PyObject_CallNoArgs(the_running_loop);
    if (loop == NULL) {
        return NULL;
    }
    Py_DECREF(loop);
    if (loop == Py_None || loop != slot(self->link, link_home)) {
        Py_RETURN_NONE;
    }
    PyObject *call_id = Py_NewRef(next), *waiter = NULL, *after = NULL, *result = NULL;
    int is_used = PyDict_Contains(self->calls, call_id);
    if (is_used != 0) {
        result = is_used < 0 ? NULL : Py_NewRef(Py_None);
        goto done;
    }
    after = PyLong_FromUnsignedLong(id == UINT32_MAX ? 0 : id + 1);
    waiter = PyObject_CallMethodNoArgs(self->loop, str_create_future);
    if (self->has_ended && waiter != NULL) {
        result = Py_NewRef(Py_None);
        goto done;
    }
    if (after == NULL || waiter == NULL || (result = PyTuple_Pack(2, call_id, waiter)) == NULL ||
        PyDict_SetItem(self->calls, call_id, waiter) < 0) {
        Py_CLEAR(result);
        goto done;
    }
    if (send_now(self, data, writer.at - data)) {
        set_slot(self->session, session__next_id, after);
    } else if (PyDict_DelItem(self->calls, call_id) < 0) {
        Py_CLEAR(result);
    } else {
        Py_SETREF(result, Py_NewRef(Py_None));
    }
done:
    Py_DECREF(call_id);
    Py_XDECREF(waiter);
    Py_XDECREF(after);
    return result;
}

PyDoc_STRVAR(call_doc,
             "call(method, params)\n--\n\n"
             "Send a request, and return its id and the future that its RESPONSE will be the result of.\n\n"
             "None if anything about it, or the connection, is out of the ordinary: then nothing has happened.");

static PyObject *
lane_call(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Lane *self = (Lane *)object;
    if (count != 2) {
        return PyErr_Format(PyExc_TypeError, "call takes 2 arguments, got %zd", count);
    }
    if (self->has_ended) {
        Py_RETURN_NONE;
    }
    enter(self);
    PyObject *sent = send_request(self, args[0], args[1]);
    leave(self);
    return sent;
}

/* ---- Answers of this side ---- */

PyDoc_STRVAR(finish_doc,
             "finish(call, result)\n--\n\n"
             "Answer a call with what its handler returned, and end it. Python does so (Dispatcher._succeeded) if\n"
             "anything about it, or the connection, is out of the ordinary.");

static PyObject *
lane_finish(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Lane *self = (Lane *)object;
    if (count != 2) {
        return PyErr_Format(PyExc_TypeError, "finish takes 2 arguments, got %zd", count);
    }
    PyObject *call = args[0], *result = args[1];
    if ((PyObject *)Py_TYPE(call) != the_HandledCall || self->dispatcher == NULL) {
        return PyErr_Format(PyExc_TypeError, "finish takes a call of this connection");
    }
    enter(self);
    PyObject *told = finish_call(self, call, result);
    leave(self);
    return told;
}

PyDoc_STRVAR(let_go_doc, "let_go()\n--\n\nRefer to nothing any more: the connection has ended.");

static PyObject *
lane_let_go(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Lane *self = (Lane *)object;
    if (self->dispatcher != NULL && slot(self->dispatcher, dispatcher_lane) == object) {
        set_slot(self->dispatcher, dispatcher_lane, Py_None);
    }
    self->has_ended = true;
    enter(self);
    leave(self);
    Py_RETURN_NONE;
}

static PyMethodDef lane_methods[] = {
    {"ready", lane_ready, METH_NOARGS, ready_doc},
    {"read", (PyCFunction)(void (*)(void))lane_read, METH_FASTCALL, read_doc},
    {"call", (PyCFunction)(void (*)(void))lane_call, METH_FASTCALL, call_doc},
    {"finish", (PyCFunction)(void (*)(void))lane_finish, METH_FASTCALL, finish_doc},
    {"let_go", lane_let_go, METH_NOARGS, let_go_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(lane_doc, "Lane(link, carrier)\n--\n\nTakes the plainest packets of one connection.");

static PyType_Slot lane_slots[] = {
    {Py_tp_doc, (void *)lane_doc},
    {Py_tp_new, lane_new},
    {Py_tp_dealloc, lane_dealloc},
    {Py_tp_traverse, lane_traverse},
    {Py_tp_clear, lane_clear},
    {Py_tp_methods, lane_methods},
    {0, NULL},
};

PyType_Spec lane_spec = {
    .name = "seqrpc._native.Lane",
    .basicsize = sizeof(Lane),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lane_slots,
};
