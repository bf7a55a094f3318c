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

/* What refers to a descriptor: protocol section 4. */
#define EXT_DESCRIPTOR 1

/* Descriptors of a packet that is read or written here; one with more is left to Python. */
#define MOST_FDS 8

/* What is being read: a packet, or a part of one. Nothing in it points outside of it. */
typedef struct {
    const uint8_t *at;
    const uint8_t *end;
    int depth;         /* arrays and maps that may still be entered */
    PyObject *fds;     /* a list of what came with it, borrowed; NULL if nothing did */
    uint32_t referred; /* a bit for each of them that was referred to */
} Reader;

/* The numbers of descriptors that go with a packet, borrowed. */
typedef struct {
    int fds[MOST_FDS];
    int count;
} Lent;

/* What is being written; `at` never passes `end`. */
typedef struct {
    uint8_t *at;
    uint8_t *end;
    int depth;
    Lent *lent;      /* where descriptors of values go; NULL if there may be none */
    PyObject *kinds; /* classes whose objects are sent as their attributes, with the names of those:
                        Encoder._plain_kinds; borrowed, or NULL */
} Writer;

/* Read an unsigned integer of at most 64 bits, or 32, in any of its encodings. False for all else. */
bool read_uint64(Reader *reader, uint64_t *number);
bool read_uint32(Reader *reader, uint32_t *number);

/* Find a string without making it. False for all else. */
bool read_text(Reader *reader, const char **text, Py_ssize_t *size);

/* Step over a plain value that refers to no descriptor, and whose strings are all in ASCII: then reading it makes a
   value for sure. False for all else. Nothing is made. */
bool pass_value(Reader *reader);

/* Whether an array begins with this byte. */
bool is_list(uint8_t first);

/* Return an array as a list, or any value; in place of a reference to a descriptor, what is in the list of those. NULL,
   without an exception, for what is not plain, is malformed or is cut; NULL with one if memory ran out. */
PyObject *read_list(Reader *reader);
PyObject *read_value(Reader *reader);

/* Write. False, without an exception, for what is not plain or does not fit; whatever was written is then void. */
bool write_uint64(Writer *writer, uint64_t number);
bool write_value(Writer *writer, PyObject *value);
bool write_byte(Writer *writer, uint8_t byte);

#endif
