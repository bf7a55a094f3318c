/* What asyncio knows of the thread. On Python 3.11 asyncio asks the kernel for the process id each time it tells which
 * loop runs, which takes as long as sending half a packet; here that is asked once a process.
 */

#include "loops.h"

#if PY_VERSION_HEX < 0x030C0000

#include <pthread.h>
#include <unistd.h>

/* What 3.11 keeps in a thread's dictionary (Modules/_asynciomodule.c): the layout of a version that gets no changes. */
typedef struct {
    PyObject_HEAD PyObject *loop;
    pid_t process;
} Holder;

static PyTypeObject *holder_type; /* once it was seen that its objects are such */
static pid_t this_process;        /* 0 until it is known */

static void
forget_process(void)
{
    this_process = 0;
}

/* Learn the type of what asyncio keeps, if it is as thought: it has the size, and the loop that asyncio tells. */
static void
learn_type(PyObject *holder, PyObject *running)
{
    static bool is_told_of_forks = false;
    if (holder_type != NULL || Py_TYPE(holder)->tp_basicsize != sizeof(Holder) || Py_TYPE(holder)->tp_itemsize != 0 ||
        ((Holder *)holder)->loop != running || ((Holder *)holder)->process != getpid()) {
        return;
    }
    is_told_of_forks = is_told_of_forks || pthread_atfork(NULL, NULL, forget_process) == 0;
    if (is_told_of_forks) {
        holder_type = (PyTypeObject *)Py_NewRef(Py_TYPE(holder));
    }
}

PyObject *
running_loop(void)
{
    PyObject *dict = PyThreadState_GetDict();
    PyObject *holder = dict == NULL ? NULL : PyDict_GetItemWithError(dict, str___asyncio_running_event_loop__);
    if (holder != NULL && Py_IS_TYPE(holder, holder_type)) {
        if (this_process == 0) {
            this_process = getpid();
        }
        PyObject *loop = ((Holder *)holder)->loop;
        return ((Holder *)holder)->process == this_process && loop != Py_None ? loop : NULL;
    }
    PyObject *loop = PyErr_Occurred() ? NULL : PyObject_CallNoArgs(the_running_loop);
    if (loop != NULL && loop != Py_None && holder != NULL) {
        learn_type(holder, loop);
    }
    Py_XDECREF(loop); /* the thread has it */
    return loop == Py_None ? NULL : loop;
}

PyObject *
current_task(PyObject *loop)
{
    return Py_XNewRef(PyDict_GetItemWithError(the_current_tasks, loop));
}

#else

PyObject *
running_loop(void)
{
    PyObject *loop = PyObject_CallNoArgs(the_running_loop);
    Py_XDECREF(loop); /* the thread has it */
    return loop == Py_None ? NULL : loop;
}

PyObject *
current_task(PyObject *loop)
{
    PyObject *task = PyObject_CallOneArg(the_current_task, loop);
    if (task == Py_None) {
        Py_CLEAR(task);
    }
    return task;
}

#endif
