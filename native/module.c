/* The module seqrpc._native: what the quick lane is made of, beside the Python that stays.
 *
 * seqrpc/twin.py loads it and decides whether it is used. Types come from the other files, each by an entry of its own
 * in `slots`.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef Py_GIL_DISABLED
#error "seqrpc._native counts on the GIL: free-threaded builds of Python run the Python twin"
#endif

#ifndef SEQRPC_SOURCES
#error "SEQRPC_SOURCES is not defined: native/build.py compiles this"
#endif

/* What the Python beside it counts on; seqrpc/twin.py has the same number. Each change of what passes between the two
 * takes the next one. */
#ifndef SEQRPC_INTERFACE
#define SEQRPC_INTERFACE 7
#endif

#include "alarms.h"
#include "lane.h"
#include "timeouts.h"

/* Add a type, and return it, borrowed; NULL with an exception. */
static PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec, const char *name)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    int added = type == NULL ? -1 : PyModule_AddObjectRef(module, name, type);
    Py_XDECREF(type);
    return added < 0 ? NULL : (PyTypeObject *)type;
}

static int
add_types(PyObject *module)
{
    PyTypeObject *handling = add_type(module, &handling_spec, "Handling");
    PyTypeObject *alarm = add_type(module, &alarm_spec, "Alarm");
    PyTypeObject *first_step = add_type(module, &first_step_spec, "FirstStep");
    PyTypeObject *sent = add_type(module, &sent_spec, "Sent");
    PyTypeObject *alarms = add_type(module, &alarms_spec, "Alarms");
    if (make_constants() < 0 || handling == NULL || alarm == NULL || first_step == NULL || sent == NULL ||
        alarms == NULL || make_nothing() < 0 || add_type(module, &lane_spec, "Lane") == NULL ||
        add_type(module, &timeout_spec, "Timeout") == NULL) {
        return -1;
    }
    Py_XSETREF(handling_type, (PyTypeObject *)Py_NewRef(handling));
    Py_XSETREF(sent_type, (PyTypeObject *)Py_NewRef(sent));
    Py_XSETREF(first_step_type, (PyTypeObject *)Py_NewRef(first_step));
    Py_XSETREF(alarms_type, (PyTypeObject *)Py_NewRef(alarms));
    Py_XSETREF(alarm_type, (PyTypeObject *)Py_NewRef(alarm));
    return 0;
}

PyDoc_STRVAR(bind_doc, "bind(objects)\n--\n\nLearn the classes and objects of Python that lanes use, by name, once.");

PyDoc_STRVAR(
    stop_clock_doc,
    "stop_clock(nanoseconds)\n--\n\n"
    "Let the clock tell that for ever, as benchmarks.guard needs to count the same each time; 0 lets it go again.");

PyDoc_STRVAR(at_once_doc, "closes_at_once(fd)\n--\n\nAs seqrpc.kernel.kinds.closes_at_once, where that is no error.");

static PyObject *
says_whether_at_once(PyObject *Py_UNUSED(module), PyObject *number)
{
    long fd = PyLong_AsLong(number);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(closes_at_once((int)fd));
}

static PyMethodDef functions[] = {
    {"closes_at_once", says_whether_at_once, METH_O, at_once_doc   },
    {"bind",           bind_names,           METH_O, bind_doc      },
    {"stop_clock",     stop_clock,           METH_O, stop_clock_doc},
    {NULL,             NULL,                 0,      NULL          },
};

static int
add_constants(PyObject *module)
{
    /* What an extension keeps beside its module's state, as interned names, is one interpreter's. */
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "seqrpc._native is for the main interpreter only");
        return -1;
    }
    if (PyModule_AddIntConstant(module, "INTERFACE", SEQRPC_INTERFACE) < 0) {
        return -1;
    }
    return PyModule_AddStringConstant(module, "SOURCES", SEQRPC_SOURCES);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec,                  add_constants                             },
    {Py_mod_exec,                  add_types                                 },
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0,                            NULL                                      },
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "seqrpc._native",
    .m_doc = "The native twin of what Python does for the plainest packets.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
