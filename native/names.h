/* What the names of Python stand for here: classes, where their objects keep attributes, functions, names of methods.
 *
 * Bound once, by seqrpc.aio.lanes. Python keeps what matters in __slots__, and it is read where it stands: nothing of
 * it is copied here, so nothing can go stale.
 */

#ifndef SEQRPC_NAMES_H
#define SEQRPC_NAMES_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where objects of a class, and of its subclasses, keep an attribute. */
typedef Py_ssize_t Slot;

/* Find the slot of a class; -1 with an exception if the class has none of this name. */
Slot find_slot(PyObject *type, const char *name);

/* What is in a slot, borrowed; NULL if it was never set or was deleted. The object is of the class of the slot. */
static inline PyObject *
slot(PyObject *object, Slot offset)
{
    return *(PyObject **)((char *)object + offset);
}

/* Put something into a slot; borrows `value`. A msgspec Struct that takes part in garbage collection must know already
   that it does, unless `value` does not. */
static inline void
set_slot(PyObject *object, Slot offset, PyObject *value)
{
    PyObject **place = (PyObject **)((char *)object + offset);
    PyObject *before = *place;
    Py_INCREF(value);
    *place = value;
    Py_XDECREF(before);
}

/* The C function of a method without arguments of a built-in class; NULL with an exception if it is none. */
PyCFunction find_method(PyObject *type, const char *name);

/* clang-format off */

/* Class, the prefix of the name here, attribute: link_home is where a Link keeps `home`. */
#define SLOTS(of) \
    of(Link, link, quiet_sweeps) of(Link, link, writing_paused) of(Link, link, home) of(Link, link, handler) \
    of(Session, session, closing_sent) of(Session, session, closing_received) of(Session, session, _next_id) \
    of(Session, session, _was_asked) \
    of(Carrier, carrier, sends_at_once) of(Carrier, carrier, broken) \
    of(Intake, intake, is_reading) of(Intake, intake, protocol) of(Intake, intake, _lone_wakeups) \
    of(Intake, intake, _share) of(Intake, intake, _packets) \
    of(Share, share, used) of(Share, share, look_at) of(Share, share, crowded) \
    of(Inbox, inbox, peer) of(Inbox, inbox, uid) \
    of(Turns, turns, waiting) \
    of(Account, account, most_calls) of(Account, account, most_calls_of_all) of(Account, account, fds) \
    of(RunningCalls, running, is_attended) \
    of(Dispatcher, dispatcher, _connection) of(Dispatcher, dispatcher, _surroundings) \
    of(Dispatcher, dispatcher, lane) of(Dispatcher, dispatcher, _terms) \
    of(Entry, entry, is_immediate) of(Entry, entry, is_native) of(Entry, entry, policy) of(Entry, entry, handler) \
    of(Entry, entry, exact) of(Entry, entry, untyped) of(Entry, entry, result_check) of(Entry, entry, latency) \
    of(Entry, entry, spec) \
    of(ResultCheck, check, exact) \
    of(Request, request, call_id) of(Request, request, is_plain) of(Request, request, method) \
    of(Request, request, params) of(Request, request, fds) of(Request, request, options) \
    of(Response, response, call_id) of(Response, response, result) of(Response, response, fds) \
    of(HandledCall, call, caller) of(HandledCall, call, connection) of(HandledCall, call, dispatcher) \
    of(HandledCall, call, coroutine) of(HandledCall, call, task) \
    of(HandledCall, call, has_begun) of(HandledCall, call, request) of(HandledCall, call, entry) \
    of(HandledCall, call, began) of(HandledCall, call, deadline_ns) of(HandledCall, call, timer) \
    of(Scope, scope, deadline_ns) of(Scope, scope, outgoing_meta) of(Scope, scope, outer) \
    of(OwnedFd, owned, _fd) of(OwnedFd, owned, _generation) of(OwnedFd, owned, _sender) of(OwnedFd, owned, _booked)

/* Classes, functions and objects of Python: the_Link. */
#define OBJECTS(of) \
    of(Link) of(Session) of(Carrier) of(Intake) of(Inbox) of(Turns) of(Account) of(RunningCalls) of(Dispatcher) \
    of(Starter) of(Share) of(closer) of(lone_wakeups) of(Entry) of(ResultCheck) of(Request) of(Response) \
    of(HandledCall) of(Socket) of(Task) of(Future) of(blank_call) of(blank_request) of(blank_response) of(OwnedFd) \
    of(Options) of(forks) of(nowhere) of(close_all) of(longest_timer) of(no_params) of(scope) of(running_loop) \
    of(begins_tasks) of(current_tasks) of(current_task) of(Scope) of(blank_scope) of(cancel_task) \
    of(alarms_of) of(expire)

/* Names of attributes and methods: str_admits. */
#define STRINGS(of) \
    of(admits) of(request_denied) of(packet_received) of(request_received) of(_refuse_params) of(_not_started) \
    of(_run) of(start) of(done) of(set_result) of(next) of(fail) of(create_future) of(_succeeded) of(_failed) \
    of(_unsent) of(end) of(connection) of(running) of(get_task_factory) of(throw) \
    of(close) of(value) of(take) of(careful) of(_read_ready) of(read_on) of(until) of(look) \
    of(generation) of(uid) of(_high) of(end_wakeup) of(cancel) of(_deadline_passed) \
    of(lack_of_descriptors) of(deadline) of(_inbox) of(append) of(tend) of(bind) of(__dict__) of(check) \
    of(loop) of(get_debug) of(context) of(_asyncio_future_blocking) of(time) of(cancelling) of(enter) of(leave) \
    of(__asyncio_running_event_loop__)

/* clang-format on */

#define DECLARE_SLOT(class, name, attribute) extern Slot name##_##attribute;
SLOTS(DECLARE_SLOT)
#undef DECLARE_SLOT

#define DECLARE_OBJECT(name) extern PyObject *the_##name;
OBJECTS(DECLARE_OBJECT)
#undef DECLARE_OBJECT

#define DECLARE_STRING(name) extern PyObject *str_##name;
STRINGS(DECLARE_STRING)
#undef DECLARE_STRING

extern PyObject *zero, *one, *minus_one, *no_arguments;
extern PyCFunction number_of_socket, copy_of_struct; /* socket.fileno, msgspec.Struct.__copy__ */
extern PyCFunction done_of_future;                   /* asyncio.Future.done, if that can be called so; else NULL */
extern Py_ssize_t calls_kind;                        /* seqrpc.aio.accounts.CALLS */
extern Py_ssize_t small_blocks;                      /* of memory files that close at once */
extern bool is_bound;

/* Make the strings and numbers: what does not depend on the objects. -1 with an exception. */
int make_constants(void);

/* Whether a future is done; -1 on an exception. */
int is_future_done(PyObject *future);

/* Learn all of them from a dict by name. */
PyObject *bind_names(PyObject *module, PyObject *objects);

/* Let the clock below tell so many nanoseconds for ever; 0 lets it go again. */
PyObject *stop_clock(PyObject *module, PyObject *nanoseconds);

/* Nanoseconds of CLOCK_MONOTONIC: time.monotonic_ns(). */
int64_t monotonic_ns(void);

/* Seconds of CLOCK_MONOTONIC: time.monotonic(). */
double now(void);

/* Add a number to one in a list, or in a slot. */
int add_to_item(PyObject *list, Py_ssize_t index, PyObject *amount);
int add_to_slot(PyObject *object, Slot offset, PyObject *amount);

/* Take the exception that was raised, as `except Exception as exc` does; NULL if it is another, which stays. */
PyObject *caught(void);

/* Take whatever was raised, as `except BaseException as exc` does. */
PyObject *caught_any(void);

/* Call a method inside of `except ... as exc`: the exception is the one being handled. Arguments up to NULL. */
PyObject *call_handling(PyObject *exc, PyObject *object, PyObject *method, ...);

#endif
