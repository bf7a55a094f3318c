/* A request that was admitted, until it is answered: its handler is started in a task and a context of its own, and
 * what it returned is sent. handling.c is what happens in between.
 */

#include "alarms.h"
#include "lane.h"
#include "values.h"

/* ---- The beginning of a call ---- */

/* Return a copy of the context that the connection is in, with the call in it. */
static PyObject *
context_of(Lane *lane, PyObject *call)
{
    PyObject *context = PyContext_Copy(slot(lane->dispatcher, dispatcher__surroundings)), *token = NULL;
    if (context == NULL || PyContext_Enter(context) < 0) {
        Py_XDECREF(context);
        return NULL;
    }
    token = PyContextVar_Set(the_scope, call);
    if (PyContext_Exit(context) < 0 || token == NULL) {
        Py_XDECREF(token);
        Py_DECREF(context);
        return NULL;
    }
    Py_DECREF(token);
    return context;
}

/* Return a call as Dispatcher.request_received makes it. */
static PyObject *
new_call(Lane *lane, PyObject *request, PyObject *entry, PyObject *caller)
{
    PyObject *connection = slot(lane->dispatcher, dispatcher__connection);
    if (connection == NULL || connection == Py_None) {
        connection = PyObject_GetAttr(lane->dispatcher, str_connection);
    } else {
        Py_INCREF(connection);
    }
    PyObject *began = PyLong_FromLongLong(monotonic_ns());
    PyObject *call = connection == NULL || began == NULL ? NULL : copy_of_struct(the_blank_call, NULL);
    if (call != NULL) {
        set_slot(call, call_request, request);
        set_slot(call, call_caller, caller);
        set_slot(call, call_connection, connection);
        set_slot(call, call_dispatcher, lane->dispatcher);
        set_slot(call, call_entry, entry);
        set_slot(call, call_began, began);
    }
    Py_XDECREF(connection);
    Py_XDECREF(began);
    return call;
}

/* Start the handler: in a task that is made here or, where there is a task factory, as Python does. */
static int
start_call(Lane *lane, PyObject *call, PyObject *coroutine)
{
    int result = -1;
    PyObject *dispatcher = lane->dispatcher, *running = NULL, *task = NULL;
    PyObject *context = context_of(lane, call);
    PyObject *factory = context == NULL ? NULL : PyObject_CallMethodNoArgs(lane->loop, str_get_task_factory);
    if (factory == NULL) {
        goto done;
    }
    if (factory == Py_None && the_begins_tasks == Py_True) {
        running = new_handling(dispatcher, call, coroutine);
        task = running == NULL ? NULL : begin_task(lane, context, running);
        if (task != NULL && ((Handling *)running)->state != ENDED) {
            set_slot(call, call_task, task);
        }
    } else {
        running = PyObject_CallMethodObjArgs(dispatcher, str__run, call, coroutine, NULL);
        task =
            running == NULL ? NULL : PyObject_CallMethodObjArgs(lane->starter, str_start, context, call, running, NULL);
    }
    if (task != NULL) {
        result = 0;
        goto done;
    }
    PyObject *exc = running == NULL ? NULL : caught_any();
    if (exc != NULL) {
        PyObject *told = call_handling(exc, dispatcher, str__not_started, call, coroutine, running, exc, NULL);
        result = told == NULL ? -1 : 0;
        Py_XDECREF(told);
        Py_DECREF(exc);
    }
done:
    Py_XDECREF(context);
    Py_XDECREF(factory);
    Py_XDECREF(running);
    Py_XDECREF(task);
    return result;
}

/* Have a call stopped at its deadline, if it still runs, as Dispatcher.request_received does. */
static int
watch_deadline(Lane *lane, PyObject *call)
{
    if (slot(call, call_task) == Py_None) {
        return 0;
    }
    PyObject *passed = PyObject_GetAttr(lane->dispatcher, str__deadline_passed), *timer = NULL;
    if (passed != NULL) {
        timer = set_alarm(lane->loop, seconds_until(slot(call, call_deadline_ns)), passed, call);
        Py_DECREF(passed);
    }
    if (timer == NULL) {
        return -1;
    }
    set_slot(call, call_timer, timer);
    Py_DECREF(timer);
    return 0;
}

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

/* Call the handler of a request, which gives its coroutine, with arguments that fit as they are, or were converted. */
static PyObject *
new_coroutine(Lane *lane, PyObject *entry, PyObject *params)
{
    PyObject *handler = slot(entry, entry_handler), *args, *kwargs, *coroutine = NULL;
    if (are_exact(entry, params)) {
        return PyObject_Vectorcall(handler, PySequence_Fast_ITEMS(params), (size_t)PyList_GET_SIZE(params), NULL);
    }
    PyObject *bound = PyObject_CallMethodObjArgs(
        slot(entry, entry_spec), str_bind, params, slot(lane->dispatcher, dispatcher__terms), NULL);
    if (bound != NULL && PyArg_ParseTuple(bound, "O!O!", &PyTuple_Type, &args, &PyDict_Type, &kwargs)) {
        coroutine = PyObject_Call(handler, args, kwargs);
    }
    Py_XDECREF(bound);
    return coroutine;
}

int
start_handler(Lane *lane, PyObject *request, PyObject *entry, PyObject *caller, PyObject *deadline)
{
    int result = -1;
    PyObject *call_id = slot(request, request_call_id), *params = slot(request, request_params);
    PyObject *call = new_call(lane, request, entry, caller), *coroutine = NULL;
    if (call == NULL) {
        return -1;
    }
    if (deadline != NULL) {
        set_slot(call, call_deadline_ns, deadline);
    }
    coroutine = new_coroutine(lane, entry, params);
    if (coroutine == NULL) {
        PyObject *exc = caught_any();
        PyObject *told = call_handling(exc, lane->dispatcher, str__refuse_params, request, caller, exc, NULL);
        result = told == NULL ? -1 : 0;
        Py_XDECREF(told);
        Py_DECREF(exc);
        goto done;
    }
    if (PyDict_SetItem(lane->requests, call_id, call) < 0 || add_to_item(lane->held, calls_kind, one) < 0 ||
        add_to_item(lane->total, calls_kind, one) < 0) {
        goto done;
    }
    set_slot(call, call_coroutine, coroutine);
    result = start_call(lane, call, coroutine);
    if (result == 0 && deadline != NULL) {
        result = watch_deadline(lane, call);
    }
done:
    Py_DECREF(call);
    Py_XDECREF(coroutine);
    return result;
}

/* ---- The end of a call ---- */

/* Write the answer to a call; false if it is not plain. */
static bool
write_answer(Lane *lane, Writer *writer, uint8_t *data, PyObject *call_id, PyObject *result)
{
    *writer = (Writer){data, data + MOST_BYTES, lane->most_depth - 1, NULL, lane->kinds};
    return write_byte(writer, ARRAY_OF_FOUR) && write_byte(writer, RESPONSE) && write_value(writer, call_id) &&
           write_byte(writer, 0xc0) && write_value(writer, result);
}

/* Whether a result fits its annotation: 1 if its type tells, 2 if Python was asked, 0 if Python is to say why not, -1
   on an exception. */
static int
fits(PyObject *check, PyObject *result)
{
    if (check == Py_None ||
        ((PyObject *)Py_TYPE(check) == the_ResultCheck && slot(check, check_exact) == (PyObject *)Py_TYPE(result))) {
        return 1;
    }
    PyObject *told = PyObject_CallMethodOneArg(check, str_check, result);
    if (told == NULL) {
        PyObject *exc = caught();
        Py_XDECREF(exc);
        return exc == NULL ? -1 : 0;
    }
    Py_DECREF(told);
    return 2;
}

/* Send the result of a call, if it is plain and can leave at once. Returns 1 if it left, 0 if nothing has happened; on
   an exception -1 if it did not leave, and -2 if it did. */
static int
send_result(Lane *lane, PyObject *request, PyObject *entry, PyObject *result)
{
    uint8_t data[MOST_BYTES];
    Writer writer;
    PyObject *check = slot(entry, entry_result_check), *call_id = slot(request, request_call_id);
    if (lane->has_ended || !PyLong_CheckExact(call_id) || !write_answer(lane, &writer, data, call_id, result)) {
        return 0; /* before it is checked, for Python checks it, too */
    }
    int fit = fits(check, result);
    if (fit <= 0) {
        return fit;
    }
    if (lane->has_ended || slot(lane->link, link_writing_paused) != Py_False ||
        slot(lane->carrier, carrier_sends_at_once) != Py_True ||
        (fit == 2 && !write_answer(lane, &writer, data, call_id, result)) ||
        !send_now(lane, data, writer.at - data, NULL)) {
        return 0;
    }
    int found = PyDict_Contains(lane->requests, call_id);
    return found < 0 || (found > 0 && PyDict_DelItem(lane->requests, call_id) < 0) ? -2 : 1;
}

/* Let go of what a call has besides its arguments: descriptors that nobody took, and the timer of its deadline. */
static int
let_go_of_rest(PyObject *call, PyObject *request)
{
    PyObject *fds = slot(request, request_fds), *timer = slot(call, call_timer);
    if (close_few(fds) < 0) {
        return -1;
    }
    if (Py_IS_TYPE(timer, alarm_type)) {
        return cancel_alarm(timer) < 0 ? -1 : 0;
    }
    if (timer != Py_None) {
        PyObject *told = PyObject_CallMethodNoArgs(timer, str_cancel);
        Py_XDECREF(told);
        return told == NULL ? -1 : 0;
    }
    return 0;
}

/* Forget a call that was answered, as RunningCalls.end does. */
static int
end_call(Lane *lane, PyObject *call, PyObject *request, PyObject *entry)
{
    if (slot(lane->running, running_is_attended) != Py_False) {
        PyObject *told = PyObject_CallMethodOneArg(lane->running, str_end, call);
        Py_XDECREF(told);
        return told == NULL ? -1 : 0;
    }
    int64_t began = PyLong_AsLongLong(slot(call, call_began));
    if (began == -1 && PyErr_Occurred()) {
        return -1;
    }
    int64_t nanoseconds = monotonic_ns() - began;
    PyObject *took = PyLong_FromLongLong(nanoseconds), *latency = slot(entry, entry_latency);
    int bits = nanoseconds > 0 ? 64 - __builtin_clzll((unsigned long long)nanoseconds) : 0;
    int failed = took == NULL || add_to_item(latency, bits, one) < 0 || add_to_item(latency, 64, took) < 0 ||
                 add_to_item(lane->held, calls_kind, minus_one) < 0 ||
                 add_to_item(lane->total, calls_kind, minus_one) < 0;
    Py_XDECREF(took);
    set_slot(call, call_task, Py_None);
    if (slot(request, request_is_plain) != Py_True && let_go_of_rest(call, request) < 0) {
        failed = 1;
    }
    set_slot(request, request_params, the_no_params);
    return failed ? -1 : 0;
}

/* End a call for what was raised, which stays so, as `finally` in Dispatcher._run does. */
static void
end_raised(Lane *lane, PyObject *call)
{
    PyObject *raised = caught_any();
    PyObject *told = PyObject_CallMethodOneArg(lane->running, str_end, call);
    Py_XDECREF(told);
    PyErr_Clear(); /* what came first says more */
    PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
    Py_DECREF(raised);
}

/* Answer for a result that could not be sent for what was raised, and end the call, as Dispatcher._run does. Returns
   None, or NULL if something is to be raised. */
static PyObject *
answer_unsent(Lane *lane, PyObject *call, PyObject *result)
{
    PyObject *exc = caught_any();
    PyObject *told = call_handling(exc, lane->dispatcher, str__unsent, call, result, exc, NULL);
    Py_DECREF(exc);
    if (told == NULL) {
        end_raised(lane, call);
        return NULL;
    }
    Py_SETREF(told, PyObject_CallMethodOneArg(lane->running, str_end, call));
    return told;
}

PyObject *
finish_call(Lane *lane, PyObject *call, PyObject *result)
{
    PyObject *request = Py_NewRef(slot(call, call_request)), *entry = Py_NewRef(slot(call, call_entry)), *told = NULL;
    int sent = send_result(lane, request, entry, result);
    if (sent == 0) {
        told = PyObject_CallMethodObjArgs(lane->dispatcher, str__succeeded, call, result, NULL);
    } else if (sent > 0 && end_call(lane, call, request, entry) == 0) {
        told = Py_NewRef(Py_None);
    } else if (sent == -1) {
        told = answer_unsent(lane, call, result);
    } else if (sent < 0) {
        end_raised(lane, call);
    }
    Py_DECREF(request);
    Py_DECREF(entry);
    return told;
}
