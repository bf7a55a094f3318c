/* Reading MessagePack of plain values: nil, booleans, numbers, strings, byte strings, references to descriptors, and
 * arrays and maps of these.
 *
 * This is no codec: the one that knows every rule is seqrpc/protocol in Python. What has anything in it that is not
 * exactly one of these types, or is malformed, or too deep, is not touched, and Python takes it. What is read here is
 * what msgpack would make of it.
 */

#include "values.h"

#include <string.h>

static inline uint16_t
big16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t
big32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline uint64_t
big64(const uint8_t *at)
{
    return (uint64_t)big32(at) << 32 | big32(at + 4);
}

/* Step over `size` bytes and return where they are; NULL if there are fewer. */
static inline const uint8_t *
take(Reader *reader, Py_ssize_t size)
{
    const uint8_t *at = reader->at;
    if (reader->end - at < size) {
        return NULL;
    }
    reader->at = at + size;
    return at;
}

/* Read a length of 1, 2 or 4 bytes; -1 if it is cut, or is longer than what is left. */
static inline Py_ssize_t
read_length(Reader *reader, int width)
{
    const uint8_t *at = take(reader, width);
    if (at == NULL) {
        return -1;
    }
    Py_ssize_t length = width == 1 ? at[0] : width == 2 ? big16(at) : (Py_ssize_t)big32(at);
    return length <= reader->end - reader->at ? length : -1;
}

bool
read_uint64(Reader *reader, uint64_t *number)
{
    const uint8_t *at = take(reader, 1);
    if (at == NULL) {
        return false;
    }
    uint8_t first = *at;
    if (first < 0x80) {
        *number = first;
        return true;
    }
    if (first < 0xcc || first > 0xcf) { /* signed ones are left to Python */
        return false;
    }
    at = take(reader, (Py_ssize_t)1 << (first - 0xcc));
    if (at == NULL) {
        return false;
    }
    *number = first == 0xcc ? at[0] : first == 0xcd ? big16(at) : first == 0xce ? big32(at) : big64(at);
    return true;
}

bool
read_uint32(Reader *reader, uint32_t *number)
{
    uint64_t wide;
    if (!read_uint64(reader, &wide) || wide > UINT32_MAX) {
        return false;
    }
    *number = (uint32_t)wide;
    return true;
}

bool
read_text(Reader *reader, const char **text, Py_ssize_t *size)
{
    const uint8_t *at = take(reader, 1);
    if (at == NULL) {
        return false;
    }
    uint8_t first = *at;
    Py_ssize_t length;
    if ((first & 0xe0) == 0xa0) {
        length = first & 0x1f;
    } else if (first >= 0xd9 && first <= 0xdb) {
        length = read_length(reader, 1 << (first - 0xd9));
    } else {
        return false;
    }
    const uint8_t *found = length < 0 ? NULL : take(reader, length);
    if (found == NULL) {
        return false;
    }
    *text = (const char *)found;
    *size = length;
    return true;
}

static PyObject *
read_string(Reader *reader, Py_ssize_t length)
{
    const uint8_t *at = length < 0 ? NULL : take(reader, length);
    if (at == NULL) {
        return NULL;
    }
    PyObject *string = PyUnicode_DecodeUTF8((const char *)at, length, NULL);
    if (string == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear(); /* malformed: Python tells */
    }
    return string;
}

static PyObject *
read_bytes(Reader *reader, int width)
{
    Py_ssize_t length = read_length(reader, width);
    const uint8_t *at = length < 0 ? NULL : take(reader, length);
    return at == NULL ? NULL : PyBytes_FromStringAndSize((const char *)at, length);
}

static PyObject *
read_array(Reader *reader, Py_ssize_t length)
{
    /* Each value has a byte at least, so nothing is made that does not come. */
    if (length < 0 || reader->depth == 0 || length > reader->end - reader->at) {
        return NULL;
    }
    PyObject *list = PyList_New(length);
    if (list == NULL) {
        return NULL;
    }
    reader->depth--;
    for (Py_ssize_t index = 0; index < length; index++) {
        PyObject *value = read_value(reader);
        if (value == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, index, value);
    }
    reader->depth++;
    return list;
}

static PyObject *
read_map(Reader *reader, Py_ssize_t length)
{
    if (length < 0 || reader->depth == 0 || length > (reader->end - reader->at) / 2) {
        return NULL;
    }
    PyObject *map = PyDict_New();
    if (map == NULL) {
        return NULL;
    }
    reader->depth--;
    for (Py_ssize_t index = 0; index < length; index++) {
        const char *text;
        Py_ssize_t size;
        PyObject *key = NULL, *value = NULL;
        if (read_text(reader, &text, &size)) { /* other keys have rules of their own */
            reader->at -= size;
            key = read_string(reader, size);
        }
        if (key != NULL) {
            value = read_value(reader);
        }
        int failed = value == NULL || PyDict_SetItem(map, key, value) < 0;
        Py_XDECREF(key);
        Py_XDECREF(value);
        if (failed) {
            Py_DECREF(map);
            return NULL;
        }
    }
    reader->depth++;
    return map;
}

static PyObject *
read_number(Reader *reader, uint8_t first)
{
    static const uint8_t widths[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8};
    const uint8_t *at = take(reader, widths[first - 0xca]);
    if (at == NULL) {
        return NULL;
    }
    switch (first) {
    case 0xca: {
        uint32_t bits = big32(at);
        float single;
        memcpy(&single, &bits, sizeof single);
        return PyFloat_FromDouble(single);
    }
    case 0xcb: {
        uint64_t bits = big64(at);
        double number;
        memcpy(&number, &bits, sizeof number);
        return PyFloat_FromDouble(number);
    }
    case 0xcc:
        return PyLong_FromLong(at[0]);
    case 0xcd:
        return PyLong_FromLong(big16(at));
    case 0xce:
        return PyLong_FromUnsignedLong(big32(at));
    case 0xcf:
        return PyLong_FromUnsignedLongLong(big64(at));
    case 0xd0:
        return PyLong_FromLong((int8_t)at[0]);
    case 0xd1:
        return PyLong_FromLong((int16_t)big16(at));
    case 0xd2:
        return PyLong_FromLong((int32_t)big32(at));
    default:
        return PyLong_FromLongLong((int64_t)big64(at));
    }
}

/* Return the descriptor that a reference stands for, as seqrpc/protocol/references.py does for what is in order. */
static PyObject *
read_reference(Reader *reader)
{
    const uint8_t *at = take(reader, 2);
    if (at == NULL || reader->fds == NULL || at[0] != EXT_DESCRIPTOR || at[1] >= PyList_GET_SIZE(reader->fds) ||
        reader->referred >> at[1] & 1) {
        return NULL;
    }
    reader->referred |= (uint32_t)1 << at[1];
    return Py_NewRef(PyList_GET_ITEM(reader->fds, at[1]));
}

PyObject *
read_value(Reader *reader)
{
    const uint8_t *at = take(reader, 1);
    if (at == NULL) {
        return NULL;
    }
    uint8_t first = *at;
    if (first < 0x80) {
        return PyLong_FromLong(first);
    }
    if (first < 0x90) {
        return read_map(reader, first & 0x0f);
    }
    if (first < 0xa0) {
        return read_array(reader, first & 0x0f);
    }
    if (first < 0xc0) {
        return read_string(reader, first & 0x1f);
    }
    if (first >= 0xe0) {
        return PyLong_FromLong((int8_t)first);
    }
    if (first >= 0xca && first <= 0xd3) {
        return read_number(reader, first);
    }
    switch (first) {
    case 0xc0:
        Py_RETURN_NONE;
    case 0xc2:
        Py_RETURN_FALSE;
    case 0xc3:
        Py_RETURN_TRUE;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return read_bytes(reader, 1 << (first - 0xc4));
    case 0xd9:
    case 0xda:
    case 0xdb:
        return read_string(reader, read_length(reader, 1 << (first - 0xd9)));
    case 0xdc:
    case 0xdd:
        return read_array(reader, read_length(reader, 2 << (first - 0xdc)));
    case 0xde:
    case 0xdf:
        return read_map(reader, read_length(reader, 2 << (first - 0xde)));
    case 0xd4:
        return read_reference(reader);
    default: /* what refers to streams, channels and buffers, timestamps, and what is nothing */
        return NULL;
    }
}

/* ---- Values that are only passed ---- */

/* Return how many bytes follow the first of a value that holds no others and is no string; -1 for all else. */
static Py_ssize_t
rest_of_scalar(uint8_t first)
{
    static const int8_t widths[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8};
    if (first < 0x80 || first >= 0xe0 || first == 0xc0 || first == 0xc2 || first == 0xc3) {
        return 0;
    }
    return first >= 0xca && first <= 0xd3 ? widths[first - 0xca] : -1;
}

static bool
pass_text(Reader *reader)
{
    const char *text;
    Py_ssize_t size;
    if (!read_text(reader, &text, &size)) {
        return false;
    }
    unsigned char all = 0;
    for (Py_ssize_t at = 0; at < size; at++) {
        all |= (unsigned char)text[at];
    }
    return all < 0x80;
}

/* Pass so many values, which an array or a map holds; every second one may have to be a string. */
static bool
pass_values(Reader *reader, Py_ssize_t count, bool has_keys)
{
    if (count < 0 || reader->depth == 0 || count > reader->end - reader->at) {
        return false;
    }
    reader->depth--;
    for (Py_ssize_t index = 0; index < count; index++) {
        if (has_keys && index % 2 == 0 ? !pass_text(reader) : !pass_value(reader)) {
            return false;
        }
    }
    reader->depth++;
    return true;
}

bool
pass_value(Reader *reader)
{
    if (reader->at == reader->end) {
        return false;
    }
    uint8_t first = *reader->at;
    Py_ssize_t rest = rest_of_scalar(first);
    if (rest >= 0) {
        reader->at++;
        return take(reader, rest) != NULL;
    }
    if ((first & 0xe0) == 0xa0 || (first >= 0xd9 && first <= 0xdb)) {
        return pass_text(reader);
    }
    reader->at++;
    if (first < 0xa0) {
        Py_ssize_t count = first & 0x0f;
        return first < 0x90 ? pass_values(reader, 2 * count, true) : pass_values(reader, count, false);
    }
    switch (first) {
    case 0xc4:
    case 0xc5:
    case 0xc6:
        rest = read_length(reader, 1 << (first - 0xc4));
        return rest >= 0 && take(reader, rest) != NULL;
    case 0xdc:
    case 0xdd:
        return pass_values(reader, read_length(reader, 2 << (first - 0xdc)), false);
    case 0xde:
    case 0xdf:
        return pass_values(reader, 2 * read_length(reader, 2 << (first - 0xde)), true);
    default:
        return false;
    }
}

bool
is_list(uint8_t first)
{
    return (first & 0xf0) == 0x90 || first == 0xdc || first == 0xdd;
}

PyObject *
read_list(Reader *reader)
{
    return reader->at != reader->end && is_list(*reader->at) ? read_value(reader) : NULL;
}
