/* MessagePack for the values that nearly all calls have, read and written without a detour. See unpacking.c and
 * packing.c. */

#ifndef SEQRPC_VALUES_H
#define SEQRPC_VALUES_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

/* Arrays and maps inside one another that are read or written here; what is deeper is left to Python. */
#define MOST_DEPTH 16

/* What is being read: a packet, or a part of one. Nothing in it points outside of it. */
typedef struct {
    const uint8_t *at;
    const uint8_t *end;
    int depth; /* arrays and maps that may still be entered */
} Reader;

/* What is being written; `at` never passes `end`. */
typedef struct {
    uint8_t *at;
    uint8_t *end;
    int depth;
} Writer;

/* Read an unsigned integer of at most 32 bits, in any of its encodings. False for all else. */
bool read_uint32(Reader *reader, uint32_t *number);

/* Find a string without making it. False for all else. */
bool read_text(Reader *reader, const char **text, Py_ssize_t *size);

/* Return an array as a list, or any value. NULL, without an exception, for what is not plain, is malformed or is cut;
   NULL with one if memory ran out. */
PyObject *read_list(Reader *reader);
PyObject *read_value(Reader *reader);

/* Write. False, without an exception, for what is not plain or does not fit; whatever was written is then void. */
bool write_uint32(Writer *writer, uint32_t number);
bool write_value(Writer *writer, PyObject *value);
bool write_byte(Writer *writer, uint8_t byte);

#endif
