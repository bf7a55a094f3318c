/* The lane of one connection. lane.c has it, and what is sent; reading.c a wake-up of the loop,
 * packets.c what is done with one packet, calls.c and handling.c what follows until a request is answered.
 */

#ifndef SEQRPC_LANE_H
#define SEQRPC_LANE_H

#include "names.h"
#include "values.h"

#include <sys/socket.h>

/* Bytes of a packet that is read or written here. */
#define MOST_BYTES 4096

#define ARRAY_OF_FOUR 0x94
#define ARRAY_OF_FIVE 0x95 /* of a REQUEST: it has options */
#define MAP_OF_ONE 0x81    /* of options: the deadline */
#define REQUEST 0
#define RESPONSE 1

typedef struct {
    PyObject_HEAD PyObject *link, *session, *carrier, *intake, *inbox, *sock, *loop, *turns, *account;
    PyObject *calls, *requests, *given_up;      /* the tables of the session */
    PyObject *kinds;                            /* its encoder's */
    PyObject *dispatcher, *entries;             /* NULL where others than a plain Dispatcher answer */
    PyObject *running, *starter, *held, *total; /* likewise */
    PyObject *last_name;                        /* of the method that was called last, in ASCII */
    PyObject *sender;                           /* who sent the last packet, where packets tell of that; */
    struct ucred sender_as_told;                /* in the kernel's words */
    Py_buffer buffer;                           /* where packets are received */
    Py_ssize_t most_calls;
    int most_depth;
    bool takes_descriptors, names_senders;
    bool plain_futures; /* whether the loop makes futures in no way of its own */
    bool has_ended;     /* nothing is to be sent or received any more */
    int users;          /* of its members at this moment: they are let go after the last */
} Lane;

extern PyType_Spec lane_spec, handling_spec, first_step_spec, sent_spec;
extern PyTypeObject *handling_type, *first_step_type, *sent_type;

/* Use the members of a lane: whatever is called meanwhile may end the connection, and they stay until `leave`. */
void enter(Lane *lane);
void leave(Lane *lane);

/* The descriptor of the socket as it is now; -1, with or without an exception, if it has none. */
int descriptor(Lane *lane);

/* What came with a packet: who sent it, borrowed, and few descriptors that nobody owns yet. */
typedef struct {
    PyObject *sender;
    int fds[MOST_FDS];
    int count;
} Arrival;

/* Take a packet of so many bytes that is in the buffer, from `sender`, with the descriptors in the list `fds`, or NULL.
   Exceptions end the connection, as in Intake. -1 with one that goes further. */
int take_packet(Lane *lane, Py_ssize_t size, PyObject *sender, PyObject *fds);

/* Return a list of the owners of what came; NULL with an exception, and then all of it is closed. */
PyObject *own_descriptors(Lane *lane, const Arrival *arrival);

/* Hold such descriptors on the user's account until they are closed or given away, as Account.take does. */
int book_owned(Lane *lane, PyObject *fds);

/* Whether closing a descriptor takes no time if nobody wants it to: it is asked of those whom `is_trusted` tells. */
bool closes_at_once(int fd);

/* Close those of a list of a few descriptors that came to this process, and are still owned, as close_all does. -1 with
   an exception. */
int close_few(PyObject *fds);

/* Close those of any list of descriptors, as close_all does. An exception that was raised stays;
   else there may be one afterwards. */
void close_owned(PyObject *fds);

/* The methods `read` and `ready`: seqrpc.aio.lane.Lane. */
PyObject *lane_read(PyObject *lane, PyObject *const *args, Py_ssize_t count);
PyObject *lane_ready(PyObject *lane, PyObject *ignored);

/* Send a packet, whole or not at all, without waiting; with descriptors, or NULL. False if it did not leave, for
   whatever reason: nothing has happened then, and Python tries by itself. */
bool send_now(Lane *lane, const uint8_t *data, Py_ssize_t size, const Lent *lent);

typedef enum { UNBEGUN, WORKING, ENDED } State;

typedef struct {
    PyObject_HEAD PyObject *dispatcher, *call, *work; /* `work` is the handler's coroutine */
    State state;
    bool is_running;
} Handling;

/* Return what a caller gets of a call that was sent. */
PyObject *new_sent(PyObject *call_id, PyObject *waiter, PyObject *alarm);

/* Return what the task of a call is to run. */
PyObject *new_handling(PyObject *dispatcher, PyObject *call, PyObject *work);

/* Return a task that has taken its first step, in a context; NULL with an exception, also of what ends the program. */
PyObject *begin_task(Lane *lane, PyObject *context, PyObject *coroutine);

/* Start the handler of a request that was admitted, with its arguments as they are; `deadline` is a number or NULL. -1
   on an exception. */
int start_handler(Lane *lane, PyObject *request, PyObject *entry, PyObject *caller, PyObject *deadline);

/* Answer a call with what its handler returned, and end it, whatever it is. NULL with an exception, or None. */
PyObject *finish_call(Lane *lane, PyObject *call, PyObject *result);

#endif
