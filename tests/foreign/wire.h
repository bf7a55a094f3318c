/* The wire protocol of docs/protocol.md for programs in C: MessagePack, packets, descriptors, memory files.
 *
 * What goes wrong ends the program with a word to stderr.
 */

#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { MAX_PACKET = 65536, MAX_DESCRIPTORS = 253 };
enum { REQUEST = 0, RESPONSE = 1, NOTIFY = 2, CANCEL = 3, SPILLED = 4, CLOSING = 5 };
enum { ITEMS = 0, END = 1 };
enum { DESCRIPTOR = 1, STREAM = 2, CHANNEL = 3, BUFFER = 4 };

/* A message on its way out or in, and the descriptors that go with it. All zeros is an empty one. */
struct message {
    uint8_t *bytes;
    size_t size;
    size_t room;     /* how many bytes may be written to it */
    size_t position; /* of the reader */
    bool mapped;     /* it came in a memory file: bytes is a mapping of that, and not of malloc */
    int fds[MAX_DESCRIPTORS];
    int fd_count;
    uid_t sender; /* who sent it, if the socket has SO_PASSCRED; else -1 */
};

/* Writing. */

void begin(struct message *m); /* let go of what it held, and make it empty; descriptors stay open */
void put_uint(struct message *m, uint64_t value);
void put_nil(struct message *m);
void put_array(struct message *m, int count); /* up to 15 */
void put_map(struct message *m, int count);   /* up to 15 */
void put_string(struct message *m, const char *text);
void put_repeated(struct message *m, char letter, size_t count);       /* a string of one letter */
void put_extension(struct message *m, int type, int fd);               /* a DESCRIPTOR, STREAM or CHANNEL */
void put_buffer(struct message *m, int fd, uint64_t offset, uint64_t length);
void begin_request(struct message *m, uint32_t id, const char *method, bool with_options); /* params follow */

/* Reading. */

uint64_t get_uint(struct message *m);
size_t get_array(struct message *m); /* how many values follow */
bool get_nil(struct message *m);     /* whether the next value is nil; if so, it is read */
int get_extension(struct message *m, int type); /* the descriptor, which is the caller's now */
void print_value(struct message *m);
void print_message(struct message *m); /* all of it, from its beginning, and what its files hold, which it closes */

/* Sockets. */

int connect_to(const char *path);
void make_pair(int *ours, int *theirs);
void send_message(int sock, struct message *m); /* in a packet, or spilled if it is too long */
void send_spilled(int sock, struct message *m, int64_t id); /* whatever its size; without an id if that is negative */
bool try_to_send(int sock, struct message *m); /* in a packet; false if nobody reads any more */
bool receive_message(int sock, struct message *m); /* false at the end */
void print_answer(int sock, const char *title);

/* Memory files. */

int sealed_file(const void *content, size_t size);
void *map_sealed(int fd, uint64_t offset, uint64_t length, bool whole); /* or the end of the program */

#endif
