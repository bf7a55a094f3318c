/* The lane of one connection. See lane.c; handling.c has the other half, from a request to its answer. */

#ifndef SEQRPC_LANE_H
#define SEQRPC_LANE_H

#include "names.h"

#include <sys/socket.h>

/* Bytes of a packet that is read or written here. */
#define MOST_BYTES 4096

#define ARRAY_OF_FOUR 0x94
#define REQUEST 0
#define RESPONSE 1

typedef struct {
    PyObject_HEAD
    PyObject *link, *session, *carrier, *intake, *inbox, *sock, *loop, *turns, *account;
    PyObject *calls, *requests, *given_up;      /* the tables of the session */
    PyObject *dispatcher, *entries, *policies;  /* NULL where others than a plain Dispatcher answer */
    PyObject *running, *starter, *held, *total; /* likewise */
    PyObject *last_name;                        /* of the method that was called last, in ASCII */
    PyObject *sender;                           /* who sent the last packet, where packets tell of that; */
    struct ucred sender_as_told;                /* in the kernel's words */
    Py_buffer buffer;                           /* where packets are received */
    Py_ssize_t most_calls;
    int most_depth;
    bool takes_descriptors, names_senders;
    bool has_ended; /* nothing is to be sent or received any more */
    int users;      /* of its members at this moment: they are let go after the last */
} Lane;

extern PyType_Spec lane_spec, handling_spec;
extern PyTypeObject *handling_type;

/* Use the members of a lane: whatever is called meanwhile may end the connection, and they stay until `leave`. */
void enter(Lane *lane);
void leave(Lane *lane);

/* Send a packet, whole or not at all, without waiting. False if it did not leave, for whatever reason: nothing has
   happened then, and Python tries by itself. */
bool send_now(Lane *lane, const uint8_t *data, Py_ssize_t size);

/* Start the handler of a request that was admitted, with arguments that fit as they are. -1 on an exception. */
int start_handler(Lane *lane, PyObject *request, PyObject *call_id, PyObject *params, PyObject *entry, PyObject *caller);

/* Answer a call with what its handler returned, and end it, whatever it is. NULL with an exception, or None. */
PyObject *finish_call(Lane *lane, PyObject *call, PyObject *result);

#endif
