/* Writing MessagePack of plain values, exactly of their types: the bytes are those that msgpack would write, the
 * shortest form of each. See unpacking.c.
 */

#include "names.h"
#include "values.h"

#include <string.h>

static bool write_any(Writer *writer, PyObject *value);

bool
write_byte(Writer *writer, uint8_t byte)
{
    if (writer->at == writer->end) {
        return false;
    }
    *writer->at++ = byte;
    return true;
}

/* Write a first byte, and a number of `width` bytes. */
static bool
write_number(Writer *writer, uint8_t first, uint64_t number, int width)
{
    if (writer->end - writer->at < 1 + width) {
        return false;
    }
    *writer->at++ = first;
    while (width-- > 0) {
        *writer->at++ = (uint8_t)(number >> (8 * width));
    }
    return true;
}

bool
write_uint64(Writer *writer, uint64_t number)
{
    if (number < 0x80) {
        return write_byte(writer, (uint8_t)number);
    }
    if (number <= UINT8_MAX) {
        return write_number(writer, 0xcc, number, 1);
    }
    if (number <= UINT16_MAX) {
        return write_number(writer, 0xcd, number, 2);
    }
    return number <= UINT32_MAX ? write_number(writer, 0xce, number, 4) : write_number(writer, 0xcf, number, 8);
}

static bool
write_integer(Writer *writer, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow < 0) {
        return false;
    }
    if (overflow > 0) {
        unsigned long long large = PyLong_AsUnsignedLongLong(value);
        if (large == (unsigned long long)-1 && PyErr_Occurred()) {
            PyErr_Clear();
            return false;
        }
        return write_uint64(writer, large);
    }
    if (number >= 0) {
        return write_uint64(writer, (uint64_t)number);
    }
    if (number >= -0x20) {
        return write_byte(writer, (uint8_t)number);
    }
    if (number >= INT8_MIN) {
        return write_number(writer, 0xd0, (uint64_t)number, 1);
    }
    if (number >= INT16_MIN) {
        return write_number(writer, 0xd1, (uint64_t)number, 2);
    }
    return number >= INT32_MIN ? write_number(writer, 0xd2, (uint64_t)number, 4)
                               : write_number(writer, 0xd3, (uint64_t)number, 8);
}

static bool
write_content(Writer *writer, const char *content, Py_ssize_t size)
{
    if (writer->end - writer->at < size) {
        return false;
    }
    memcpy(writer->at, content, (size_t)size);
    writer->at += size;
    return true;
}

static bool
write_string(Writer *writer, PyObject *value)
{
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL) {
        PyErr_Clear(); /* it has surrogates: Python tells */
        return false;
    }
    bool headed;
    if (size < 0x20) {
        headed = write_byte(writer, (uint8_t)(0xa0 | size));
    } else if (size <= UINT8_MAX) {
        headed = write_number(writer, 0xd9, (uint64_t)size, 1);
    } else {
        headed = size <= UINT16_MAX && write_number(writer, 0xda, (uint64_t)size, 2);
    }
    return headed && write_content(writer, text, size);
}

static bool
write_bytes(Writer *writer, PyObject *value)
{
    Py_ssize_t size = PyBytes_GET_SIZE(value);
    bool headed = size <= UINT8_MAX ? write_number(writer, 0xc4, (uint64_t)size, 1)
                                    : size <= UINT16_MAX && write_number(writer, 0xc5, (uint64_t)size, 2);
    return headed && write_content(writer, PyBytes_AS_STRING(value), size);
}

/* Write how an array or a map begins. */
static bool
write_header(Writer *writer, Py_ssize_t size, uint8_t short_first, uint8_t long_first)
{
    if (size < 0x10) {
        return write_byte(writer, (uint8_t)(short_first | size));
    }
    return size <= UINT16_MAX && write_number(writer, long_first, (uint64_t)size, 2);
}

static bool
write_array(Writer *writer, PyObject *value)
{
    /* Nothing that is called from here runs Python code, so what is written does not change meanwhile: write_value. */
    Py_ssize_t size = PySequence_Fast_GET_SIZE(value);
    if (writer->depth == 0 || !write_header(writer, size, 0x90, 0xdc)) {
        return false;
    }
    writer->depth--;
    for (Py_ssize_t index = 0; index < size; index++) {
        if (!write_any(writer, PySequence_Fast_GET_ITEM(value, index))) {
            return false;
        }
    }
    writer->depth++;
    return true;
}

static bool
write_map(Writer *writer, PyObject *value)
{
    if (writer->depth == 0 || !write_header(writer, PyDict_GET_SIZE(value), 0x80, 0xde)) {
        return false;
    }
    writer->depth--;
    Py_ssize_t position = 0;
    PyObject *key, *item;
    while (PyDict_Next(value, &position, &key, &item)) {
        if (!PyUnicode_CheckExact(key) || !write_string(writer, key) || !write_any(writer, item)) {
            return false;
        }
    }
    writer->depth++;
    return true;
}

/* Write a reference to the descriptor of an OwnedFd, which lends it. */
static bool
write_reference(Writer *writer, PyObject *owned)
{
    Lent *lent = writer->lent;
    PyObject *number = slot(owned, owned__fd);
    if (lent->count == MOST_FDS || number == NULL || !PyLong_CheckExact(number) || writer->end - writer->at < 3) {
        return false;
    }
    int overflow;
    long fd = PyLong_AsLongAndOverflow(number, &overflow);
    if (overflow || fd < 0 || fd > INT_MAX) { /* it is closed: Python tells */
        return false;
    }
    *writer->at++ = 0xd4;
    *writer->at++ = EXT_DESCRIPTOR;
    *writer->at++ = (uint8_t)lent->count;
    lent->fds[lent->count++] = (int)fd;
    return true;
}

/* Return the attributes of an object that is sent as those, as Encoder does; NULL, without an exception, for others. No
   code of Python's runs. */
static PyObject *
attributes_of(Writer *writer, PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    PyObject *names = PyDict_GetItemWithError(writer->kinds, (PyObject *)type);
    if (names == NULL || !PyFrozenSet_CheckExact(names) || type->tp_getattro != PyObject_GenericGetAttr) {
        PyErr_Clear();
        return NULL;
    }
    PyObject *descriptor = _PyType_Lookup(type, str___dict__);
    PyObject *found =
        descriptor != NULL && Py_IS_TYPE(descriptor, &PyGetSetDescr_Type) ? PyObject_GenericGetDict(value, NULL) : NULL;
    if (found != NULL && PyDict_CheckExact(found) && PyDict_GET_SIZE(found) == PySet_GET_SIZE(names)) {
        Py_ssize_t position = 0;
        PyObject *key, *item;
        bool fits = true;
        while (fits && PyDict_Next(found, &position, &key, &item)) {
            fits = PyUnicode_CheckExact(key) && PySet_Contains(names, key) == 1;
        }
        if (fits) {
            return found;
        }
    }
    PyErr_Clear();
    Py_XDECREF(found);
    return NULL;
}

static bool
write_object(Writer *writer, PyObject *value)
{
    PyObject *attributes = attributes_of(writer, value);
    bool written = attributes != NULL && write_map(writer, attributes);
    Py_XDECREF(attributes);
    return written;
}

static bool
write_any(Writer *writer, PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value); /* exactly: objects of subclasses may be sent as something else */
    if (type == &PyLong_Type) {
        return write_integer(writer, value);
    }
    if (type == &PyUnicode_Type) {
        return write_string(writer, value);
    }
    if (value == Py_None) {
        return write_byte(writer, 0xc0);
    }
    if (type == &PyBool_Type) {
        return write_byte(writer, value == Py_True ? 0xc3 : 0xc2);
    }
    if (type == &PyFloat_Type) {
        double number = PyFloat_AS_DOUBLE(value);
        uint64_t bits;
        memcpy(&bits, &number, sizeof bits);
        return write_number(writer, 0xcb, bits, 8);
    }
    if (type == &PyBytes_Type) {
        return write_bytes(writer, value);
    }
    if (type == &PyList_Type || type == &PyTuple_Type) {
        return write_array(writer, value);
    }
    if (type == &PyDict_Type) {
        return write_map(writer, value);
    }
    if ((PyObject *)type == the_OwnedFd) {
        return writer->lent != NULL && write_reference(writer, value);
    }
    return writer->kinds != NULL && write_object(writer, value);
}

bool
write_value(Writer *writer, PyObject *value)
{
#if PY_VERSION_HEX < 0x030C0000    /* later ones collect between two steps of the interpreter, not as things are made */
    int collects = PyGC_Disable(); /* or making the __dict__ of an object may run the finalizers of others */
    bool written = write_any(writer, value);
    if (collects) {
        PyGC_Enable();
    }
    return written;
#else
    return write_any(writer, value);
#endif
}
