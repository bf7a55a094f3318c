/* The lane: the plainest packets from socket to handler and back, without the interpreter.
 *
 * A lane belongs to one connection and takes what nearly all calls are made of: a REQUEST or a RESPONSE of plain values
 * with nothing attached, for a handler that is an `async def`. What is out of the ordinary in any way goes to Python
 * before anything was done about it, so that the rules stand in one place. Nor does the lane keep any state: whether
 * the connection closes, what is in flight, what a user may have, all stands in Python's objects and is read there each
 * time. What it refers to for as long as the connection lasts never changes: the objects themselves.
 *
 * The loop calls `ready` as the socket has something, and Python `call` to send a request.
 */

#include "alarms.h"
#include "lane.h"
#include "loops.h"
#include "values.h"

#include <stdalign.h>
#include <string.h>
#include <sys/socket.h>

#define SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL | MSG_EOR)

/* ---- The lane of one connection ---- */

#define MEMBERS(of) \
    of(link) of(session) of(carrier) of(intake) of(inbox) of(sock) of(loop) of(turns) of(account) of(calls) of(kinds) \
        of(requests) of(given_up) of(dispatcher) of(entries) of(running) of(starter) of(held) of(total) of(last_name) \
            of(sender)

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
                   check_type(self->running, the_RunningCalls) < 0 || check_type(self->starter, the_Starter) < 0 ||
                   check_type(self->entries, (PyObject *)&PyDict_Type) < 0
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
    PyObject *calls = NULL, *encoder = NULL;
    if (take_attribute(&self->session, link, "session") < 0 || take_attribute(&self->loop, link, "loop") < 0 ||
        take_attribute(&self->account, link, "account") < 0 || take_attribute(&calls, link, "calls") < 0 ||
        take_attribute(&self->turns, calls, "turns") < 0 || take_attribute(&self->intake, carrier, "intake") < 0 ||
        take_attribute(&self->inbox, carrier, "_inbox") < 0 || take_attribute(&self->sock, carrier, "_sock") < 0 ||
        take_attribute(&self->calls, self->session, "calls") < 0 ||
        take_attribute(&self->requests, self->session, "requests") < 0 ||
        take_attribute(&self->given_up, self->session, "given_up") < 0 ||
        take_attribute(&encoder, self->session, "_encoder") < 0 ||
        take_attribute(&self->kinds, encoder, "_plain_kinds") < 0 ||
        take_attribute(&self->held, self->account, "held") < 0 ||
        take_attribute(&self->total, self->account, "total") < 0 ||
        take_attribute(&buffer, self->intake, "_buffer") < 0 ||
        PyObject_GetBuffer(buffer, &self->buffer, PyBUF_WRITABLE) < 0) {
        goto done;
    }
    if (check_type(self->session, the_Session) < 0 || check_type(self->carrier, the_Carrier) < 0 ||
        check_type(self->intake, the_Intake) < 0 || check_type(self->inbox, the_Inbox) < 0 ||
        check_type(self->turns, the_Turns) < 0 || check_socket(self->sock) < 0 ||
        check_type(self->account, the_Account) < 0) {
        goto done;
    }
    if (!PyDict_CheckExact(self->calls) || !PyDict_CheckExact(self->requests) || !PyDict_CheckExact(self->kinds) ||
        !PySet_Check(self->given_up) || !PyList_CheckExact(self->held) || !PyList_CheckExact(self->total)) {
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
    Py_XDECREF(encoder);
    return result;
}

static PyObject *
lane_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *link, *carrier;
    int plain_futures;
    if ((kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) ||
        !PyArg_ParseTuple(args, "OOp:Lane", &link, &carrier, &plain_futures)) {
        return NULL;
    }
    if (!is_bound || check_type(link, the_Link) < 0) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_RuntimeError, "nothing was bound");
    }
    Lane *self = (Lane *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->plain_futures = plain_futures;
    PyObject *handler = slot(link, link_handler);
    if (take_parts(self, link, carrier) < 0 ||
        (handler != NULL && (PyObject *)Py_TYPE(handler) == the_Dispatcher && take_answering(self, handler) < 0)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* ---- Small things ---- */

int
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
send_now(Lane *self, const uint8_t *data, Py_ssize_t size, const Lent *lent)
{
    int fd = descriptor(self);
    if (fd < 0) {
        PyErr_Clear();
        return false;
    }
    if (lent == NULL || lent->count == 0) {
        return send(fd, data, (size_t)size, SEND_FLAGS) == size;
    }
    alignas(struct cmsghdr) char control[CMSG_SPACE(MOST_FDS * sizeof(int))] = {0};
    size_t bytes = (size_t)lent->count * sizeof(int);
    struct iovec place = {(void *)(uintptr_t)data, (size_t)size};
    struct msghdr message = {
        .msg_iov = &place, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(bytes)};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(rights), lent->fds, bytes);
    for (int index = 0; index < lent->count; index++) {
        if (lent->fds[index] == fd) { /* a connection's own socket: Python tells */
            return false;
        }
    }
    return sendmsg(fd, &message, SEND_FLAGS) == size;
}

/* ---- Calls of this side ---- */

/* Whether a request may leave now: there is room for it, nothing goes before it, and the connection is in order. */
static bool
may_send(Lane *self)
{
    return !self->has_ended && slot(self->turns, turns_waiting) == zero &&
           slot(self->link, link_writing_paused) == Py_False && slot(self->carrier, carrier_sends_at_once) == Py_True &&
           PyDict_GET_SIZE(self->calls) < self->most_calls && PySet_GET_SIZE(self->given_up) == 0 &&
           slot(self->session, session_closing_received) == Py_None;
}

/* Write the options of a request that has a deadline, if it has not passed. */
static bool
write_deadline(Writer *writer, PyObject *deadline)
{
    int overflow;
    long long at = PyLong_CheckExact(deadline) ? PyLong_AsLongLongAndOverflow(deadline, &overflow) : -1;
    return at > monotonic_ns() && write_byte(writer, MAP_OF_ONE) && write_value(writer, str_deadline) &&
           write_uint64(writer, (uint64_t)at);
}

/* Write a request; false if it is not plain. */
static bool
write_request(Writer *writer, uint32_t id, PyObject *method, PyObject *params, PyObject *deadline)
{
    bool is_bounded = deadline != Py_None;
    Lent *lent = writer->lent;
    writer->lent = NULL;
    if (!write_byte(writer, is_bounded ? ARRAY_OF_FIVE : ARRAY_OF_FOUR) || !write_byte(writer, REQUEST) ||
        !write_uint64(writer, id) || !write_value(writer, method)) {
        return false;
    }
    writer->lent = lent;
    return write_value(writer, params) && (!is_bounded || write_deadline(writer, deadline));
}

/* Return a future as the loop would make it. */
static PyObject *
new_waiter(Lane *self)
{
    static PyObject *spare; /* keywords with no loop in them, while no future is made */
    if (!self->plain_futures) {
        return PyObject_CallMethodNoArgs(self->loop, str_create_future);
    }
    PyObject *keywords = spare == NULL ? PyDict_New() : spare, *waiter = NULL;
    PyTypeObject *type = (PyTypeObject *)the_Future;
    spare = NULL;
    if (keywords != NULL && PyDict_SetItem(keywords, str_loop, self->loop) == 0) {
        waiter = type->tp_new(type, no_arguments, keywords);
    }
    if (waiter != NULL && type->tp_init(waiter, no_arguments, keywords) < 0) {
        Py_CLEAR(waiter);
    }
    if (waiter != NULL && PyDict_SetItem(keywords, str_loop, Py_None) == 0) {
        Py_XSETREF(spare, Py_NewRef(keywords));
    } else {
        Py_CLEAR(waiter);
    }
    Py_XDECREF(keywords);
    return waiter;
}

/* Send a request, and return what `call` returns. */
static PyObject *
send_request(Lane *self, PyObject *method, PyObject *params, PyObject *deadline)
{
    if (!may_send(self) || !PyUnicode_CheckExact(method) ||
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
    Lent lent = {.count = 0};
    Writer writer = {data, data + sizeof data, self->most_depth - 1, &lent, self->kinds};
    if (!write_request(&writer, (uint32_t)id, method, params, deadline)) {
        Py_RETURN_NONE;
    }
    PyObject *loop = running_loop();
    if (loop == NULL || loop != slot(self->link, link_home)) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    PyObject *call_id = Py_NewRef(next), *waiter = NULL, *after = NULL, *alarm = Py_NewRef(Py_None), *result = NULL;
    after = PyLong_FromUnsignedLong(id == UINT32_MAX ? 0 : id + 1);
    waiter = new_waiter(self);
    if (after != NULL && waiter != NULL && deadline != Py_None) {
        Py_SETREF(alarm, set_alarm(loop, seconds_until(deadline), the_expire, waiter));
    }
    if (after == NULL || waiter == NULL || alarm == NULL || (result = new_sent(call_id, waiter, alarm)) == NULL) {
        goto done;
    }
    /* Whatever ran meanwhile, even a finalizer, may have called, too, or ended the connection. */
    int is_used = PyDict_Contains(self->calls, call_id);
    if (is_used != 0 || !may_send(self) || slot(self->session, session__next_id) != next) {
        Py_SETREF(result, is_used < 0 ? NULL : Py_NewRef(Py_None));
        goto done;
    }
    if (lent.count > 0) { /* one may have been closed, and its number be another file's: nothing runs from here on */
        lent.count = 0;
        writer = (Writer){data, data + sizeof data, self->most_depth - 1, &lent, self->kinds};
        if (!write_request(&writer, (uint32_t)id, method, params, deadline)) {
            Py_SETREF(result, Py_NewRef(Py_None));
            goto done;
        }
    }
    if (PyDict_SetItem(self->calls, call_id, waiter) < 0) {
        Py_CLEAR(result);
        goto done;
    }
    if (send_now(self, data, writer.at - data, &lent)) {
        set_slot(self->session, session__next_id, after);
    } else if (PyDict_DelItem(self->calls, call_id) < 0) {
        Py_CLEAR(result);
    } else {
        Py_SETREF(result, Py_NewRef(Py_None));
    }
done:
    if ((result == NULL || result == Py_None) && alarm != NULL && alarm != Py_None) {
        cancel_alarm(alarm);
    }
    Py_DECREF(call_id);
    Py_XDECREF(waiter);
    Py_XDECREF(after);
    Py_XDECREF(alarm);
    return result;
}

PyDoc_STRVAR(
    call_doc, "call(method, params, deadline)\n--\n\n"
              "Send a request, and return a Sent.\n\n"
              "None if anything about it, or the connection, is out of the ordinary: then nothing has happened.");

static PyObject *
lane_call(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Lane *self = (Lane *)object;
    if (count != 3) {
        return PyErr_Format(PyExc_TypeError, "call takes 3 arguments, got %zd", count);
    }
    enter(self);
    PyObject *sent = send_request(self, args[0], args[1], args[2]);
    leave(self);
    return sent;
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

PyDoc_STRVAR(read_doc, "read(most, until, taken)\n--\n\nReceive packets and take them: seqrpc.aio.lane.Lane.");

PyDoc_STRVAR(ready_doc, "ready()\n--\n\nReceive what is there, as the loop calls it: as Intake._read_ready.");

static PyMethodDef lane_methods[] = {
    {"ready",  lane_ready,                             METH_NOARGS,   ready_doc },
    {"read",   (PyCFunction)(void (*)(void))lane_read, METH_FASTCALL, read_doc  },
    {"call",   (PyCFunction)(void (*)(void))lane_call, METH_FASTCALL, call_doc  },
    {"let_go", lane_let_go,                            METH_NOARGS,   let_go_doc},
    {NULL,     NULL,                                   0,             NULL      },
};

PyDoc_STRVAR(lane_doc, "Lane(link, carrier, plain_futures)\n--\n\nTakes the plainest packets of one connection.");

static PyType_Slot lane_slots[] = {
    {Py_tp_doc,      (void *)lane_doc},
    {Py_tp_new,      lane_new        },
    {Py_tp_dealloc,  lane_dealloc    },
    {Py_tp_traverse, lane_traverse   },
    {Py_tp_clear,    lane_clear      },
    {Py_tp_methods,  lane_methods    },
    {0,              NULL            },
};

PyType_Spec lane_spec = {
    .name = "seqrpc._native.Lane",
    .basicsize = sizeof(Lane),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lane_slots,
};
