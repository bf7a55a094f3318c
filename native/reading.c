/* A wake-up of the loop: what is received, as long as Python allows, and what of it Python is to see. */

#include "lane.h"

#include <errno.h>
#include <math.h>
#include <stdalign.h>
#include <string.h>
#include <unistd.h>

/* Received bytes after which a wake-up ends: as in seqrpc.aio.intake. */
#define WAKEUP_BYTES 32768
#define RECEIVE_FLAGS (MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC)
/* What brings a descriptor besides SCM_RIGHTS: linux/socket.h, as in seqrpc.kernel.ancillary. */
#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif

/* Close descriptors that came and that cannot be handed on. */
static void
close_received(struct msghdr *message)
{
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each != NULL; each = CMSG_NXTHDR(message, each)) {
        if (each->cmsg_level == SOL_SOCKET && (each->cmsg_type == SCM_RIGHTS || each->cmsg_type == SCM_PIDFD)) {
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

/* Find in what came with a packet the name of its sender and the numbers of few descriptors; false if there is anything
   else. */
static bool
find_plain(struct msghdr *message, Arrival *arrival, struct ucred *told, bool *tells)
{
    *tells = false;
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each != NULL; each = CMSG_NXTHDR(message, each)) {
        size_t bytes = each->cmsg_len - CMSG_LEN(0);
        if (each->cmsg_level != SOL_SOCKET || each->cmsg_len < CMSG_LEN(0)) {
            return false;
        }
        if (each->cmsg_type == SCM_CREDENTIALS && bytes == sizeof *told && !*tells) {
            memcpy(told, CMSG_DATA(each), sizeof *told);
            *tells = true;
        } else if (
            each->cmsg_type == SCM_RIGHTS && arrival->count == 0 && bytes % sizeof(int) == 0 && bytes > 0 &&
            bytes <= sizeof arrival->fds) {
            memcpy(arrival->fds, CMSG_DATA(each), bytes);
            arrival->count = (int)(bytes / sizeof(int));
        } else {
            return false;
        }
    }
    for (int index = 0; index < arrival->count; index++) {
        if (arrival->fds[index] < 0) { /* one that was denied */
            return false;
        }
    }
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

/* Find out what came with a packet: 1 if it is plain, 0 if Python is to see it, -1 with an exception. */
static int
take_plain(Lane *self, Py_ssize_t size, struct msghdr *message, Arrival *arrival)
{
    struct ucred told;
    bool tells;
    arrival->sender = slot(self->inbox, inbox_peer);
    if (message->msg_controllen == 0) {
        return 1;
    }
    if (!find_plain(message, arrival, &told, &tells) || tells != self->names_senders) {
        return 0;
    }
    if (tells && arrival->count == 0) {
        arrival->sender = sender_of(self, size, message, &told);
        return arrival->sender == NULL ? -1 : 1;
    }
    if (tells) { /* descriptors of somebody who is not known already are left to Python */
        arrival->sender = self->sender;
        return self->sender != NULL && memcmp(&told, &self->sender_as_told, sizeof told) == 0 ? 1 : 0;
    }
    return 1;
}

/* Receive one packet into the buffer. Returns its size, and what came with it, whose descriptors are the caller's; -1
   with errno set; -2 if there is more than a plain packet, which `rare` tells as (attempt, taken, (size, control,
   flags, None)), or is NULL with an exception. */
static Py_ssize_t
receive(Lane *self, int fd, Py_ssize_t attempt, Py_ssize_t taken, Arrival *arrival, PyObject **rare)
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
    *rare = NULL;
    arrival->count = 0;
    if (size > 0 && flags == 0) {
        int plain = take_plain(self, size, &message, arrival);
        if (plain != 0) {
            return plain > 0 ? size : -2;
        }
    }
    arrival->count = 0; /* its descriptors are those of `rare` */
    PyObject *came = control_of(&message);
    if (came == NULL) {
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
        PyObject *rare = NULL, *fds = NULL;
        Arrival arrival;
        Py_ssize_t size = receive(self, fd, attempt, taken, &arrival, &rare);
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
        Py_INCREF(arrival.sender);
        int failed = arrival.count > 0 && (fds = own_descriptors(self, &arrival)) == NULL ? -1 : 0;
        if (!failed) {
            failed = take_packet(self, size, arrival.sender, fds);
        }
        Py_DECREF(arrival.sender);
        Py_XDECREF(fds);
        if (failed < 0) {
            return NULL;
        }
        taken += size;
        if (self->has_ended || slot(self->intake, intake__lone_wakeups) != zero || taken >= WAKEUP_BYTES ||
            now() >= until) {
            break;
        }
    }
    Py_RETURN_NONE;
}

PyObject *
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

/* Read, and end the wake-up if that is simple: 1 if it was, 0 if what came is left to Python, -1 on an exception. */
static int
read_ready(Lane *self, double until, PyObject **came)
{
    Py_ssize_t most = PyObject_Size(slot(self->intake, intake__packets));
    *came = most < 0 ? NULL : read_packets(self, most, until, 0);
    if (*came == NULL) {
        return -1;
    }
    if (self->has_ended) {
        return 1;
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

PyObject *
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
