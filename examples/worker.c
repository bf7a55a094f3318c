/* A worker in C, without any library: it adds.
 *
 *     python examples/c_worker.py            compiles it, starts it and calls it
 *
 * It speaks docs/protocol.md at the descriptor whose number is in SEQRPC_FD, which is 3, and ends when that one ends.
 * One packet is one message, so there is no buffering: read one, answer it, read the next. A worker whose calls take
 * long would look for CANCEL meanwhile; these are over before one could come.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_PACKET = 65536, MAX_DESCRIPTORS = 253, MAX_DEPTH = 64 };
enum { REQUEST = 0, RESPONSE = 1, SPILLED = 4, CLOSING = 5 };

/* Reading MessagePack. What does not fit makes the reader bad, and everything that is read from then on is 0. */

struct reader {
    const unsigned char *at, *end;
    bool bad;
};

static const unsigned char *take(struct reader *in, uint64_t size) {
    if (in->bad || (uint64_t)(in->end - in->at) < size) {
        in->bad = true;
        return NULL;
    }
    const unsigned char *taken = in->at;
    in->at += size;
    return taken;
}

static uint64_t big_endian(struct reader *in, unsigned size) {
    const unsigned char *bytes = take(in, size);
    uint64_t value = 0;
    for (unsigned i = 0; bytes != NULL && i < size; i++)
        value = value << 8 | bytes[i];
    return value;
}

static unsigned peek(const struct reader *in) {
    return in->bad || in->at == in->end ? 0xc1 : *in->at; /* 0xc1 is never used */
}

static uint64_t read_unsigned(struct reader *in) {
    unsigned head = (unsigned)big_endian(in, 1);
    if (head <= 0x7f)
        return head;
    if (head >= 0xcc && head <= 0xcf)
        return big_endian(in, 1u << (head - 0xcc));
    in->bad = true;
    return 0;
}

/* Return whether the next value is an integer, and what it is; if it is none that fits, the reader stays where it is. */
static bool read_integer(struct reader *in, int64_t *value) {
    struct reader ahead = *in;
    unsigned head = (unsigned)big_endian(&ahead, 1);
    if (head >= 0xe0) {
        *value = (int64_t)head - 0x100;
    } else if (head >= 0xd0 && head <= 0xd3) {
        unsigned size = 1u << (head - 0xd0);
        uint64_t raw = big_endian(&ahead, size);
        uint64_t sign = (uint64_t)1 << (8 * size - 1);
        *value = (int64_t)((raw ^ sign) - sign);
    } else {
        ahead = *in;
        uint64_t raw = read_unsigned(&ahead);
        if (raw > INT64_MAX)
            return false;
        *value = (int64_t)raw;
    }
    if (ahead.bad)
        return false;
    *in = ahead;
    return true;
}

static uint64_t read_array(struct reader *in) {
    unsigned head = (unsigned)big_endian(in, 1);
    if ((head & 0xf0) == 0x90)
        return head & 0x0f;
    if (head == 0xdc || head == 0xdd)
        return big_endian(in, head == 0xdc ? 2 : 4);
    in->bad = true;
    return 0;
}

static const unsigned char *read_string(struct reader *in, uint64_t *size) {
    unsigned head = (unsigned)big_endian(in, 1);
    if ((head & 0xe0) == 0xa0)
        *size = head & 0x1f;
    else if (head >= 0xd9 && head <= 0xdb)
        *size = big_endian(in, 1u << (head - 0xd9));
    else
        in->bad = true;
    return in->bad ? NULL : take(in, *size);
}

static bool is(const unsigned char *string, uint64_t size, const char *text) {
    return string != NULL && size == strlen(text) && memcmp(string, text, size) == 0;
}

static void skip(struct reader *in, int depth) {
    unsigned head = (unsigned)big_endian(in, 1);
    uint64_t items = 0;
    if (depth > MAX_DEPTH) {
        in->bad = true;
    } else if (head <= 0x7f || head >= 0xe0 || head == 0xc0 || head == 0xc2 || head == 0xc3) {
        return;
    } else if (head <= 0x8f) {
        items = 2 * (uint64_t)(head & 0x0f);
    } else if (head <= 0x9f) {
        items = head & 0x0f;
    } else if (head <= 0xbf) {
        take(in, head & 0x1f);
    } else if (head >= 0xc4 && head <= 0xc6) {
        take(in, big_endian(in, 1u << (head - 0xc4)));
    } else if (head >= 0xc7 && head <= 0xc9) {
        take(in, big_endian(in, 1u << (head - 0xc7)) + 1); /* an extension has its type, too */
    } else if (head == 0xca || head == 0xcb) {
        take(in, head == 0xca ? 4 : 8);
    } else if (head >= 0xcc && head <= 0xd3) {
        take(in, 1u << ((head - 0xcc) & 3));
    } else if (head >= 0xd4 && head <= 0xd8) {
        take(in, (1u << (head - 0xd4)) + 1);
    } else if (head >= 0xd9 && head <= 0xdb) {
        take(in, big_endian(in, 1u << (head - 0xd9)));
    } else if (head == 0xdc || head == 0xdd) {
        items = big_endian(in, head == 0xdc ? 2 : 4);
    } else if (head == 0xde || head == 0xdf) {
        items = 2 * big_endian(in, head == 0xde ? 2 : 4);
    } else {
        in->bad = true;
    }
    while (items-- != 0 && !in->bad)
        skip(in, depth + 1);
}

/* Writing MessagePack. What is written here is short: method names of callers are cut. */

struct writer {
    unsigned char bytes[1024];
    size_t size;
};

static void put(struct writer *out, uint64_t value, unsigned size) {
    while (size-- != 0)
        out->bytes[out->size++] = (unsigned char)(value >> 8 * size);
}

static void put_string(struct writer *out, const char *text) {
    size_t size = strlen(text);
    put(out, 0xda, 1);
    put(out, size, 2);
    memcpy(out->bytes + out->size, text, size);
    out->size += size;
}

static int fd;

static void send_packet(const struct writer *out) {
    while (send(fd, out->bytes, out->size, MSG_EOR | MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            return; /* nobody is there: the next read says so */
}

static void begin_response(struct writer *out, uint64_t id) {
    out->size = 0;
    put(out, 0x94, 1);
    put(out, RESPONSE, 1);
    put(out, 0xce, 1);
    put(out, id, 4);
}

static void fail(uint64_t id, const char *code, const char *message) {
    struct writer out;
    begin_response(&out, id);
    put(&out, 0x93, 1);
    put_string(&out, code);
    put_string(&out, message);
    put(&out, 0xc0, 1);
    put(&out, 0xc0, 1);
    send_packet(&out);
}

static void answer_nil(uint64_t id) {
    struct writer out;
    begin_response(&out, id);
    put(&out, 0xc0, 1);
    put(&out, 0xc0, 1);
    send_packet(&out);
}

static void answer_integer(uint64_t id, int64_t value) {
    struct writer out;
    begin_response(&out, id);
    put(&out, 0xc0, 1);
    put(&out, 0xd3, 1);
    put(&out, (uint64_t)value, 8);
    send_packet(&out);
}

/* The methods */

/* Read a and b, by position or by name. */
static bool read_terms(struct reader *in, int64_t terms[2]) {
    static const char *const names[2] = {"a", "b"};
    if (peek(in) == 0x92) {
        read_array(in);
        return read_integer(in, &terms[0]) && read_integer(in, &terms[1]);
    }
    if (peek(in) != 0x82)
        return false;
    big_endian(in, 1);
    unsigned found = 0;
    for (int i = 0; i < 2; i++) {
        uint64_t size = 0;
        const unsigned char *name = read_string(in, &size);
        int which = is(name, size, names[1]);
        if (!is(name, size, names[which]) || !read_integer(in, &terms[which]))
            return false;
        found |= 1u << which;
    }
    return found == 3;
}

static void add(uint64_t id, struct reader *in) {
    int64_t terms[2], sum;
    if (!read_terms(in, terms))
        fail(id, "rpc.InvalidParams", "add takes two integers, a and b");
    else if (__builtin_add_overflow(terms[0], terms[1], &sum))
        fail(id, "rpc.InvalidParams", "the sum has more than 64 bits");
    else
        answer_integer(id, sum);
}

/* Take one message; return what is wrong with it, or NULL. */
static const char *take_message(const unsigned char *packet, size_t size, bool lost) {
    struct reader in = {packet, packet + size, false}, whole = in;
    skip(&whole, 1);
    uint64_t parts = read_array(&in), kind = read_unsigned(&in);
    if (whole.bad || whole.at != whole.end || in.bad)
        return "this is no message";
    if (kind == SPILLED && parts >= 3) { /* longer than a packet: too long for what is done here */
        read_unsigned(&in);
        uint64_t id = read_unsigned(&in);
        if (in.bad || id > UINT32_MAX)
            return "this is no SPILLED";
        fail(id, "rpc.TooLarge", "this worker takes messages that fit into a packet");
        return NULL;
    }
    if (kind == SPILLED)
        return "a long message that has no id";
    if (kind != REQUEST)
        return NULL; /* an answer to nothing, a NOTIFY of what only answers, CANCEL, CLOSING, or a kind to come */
    uint64_t id = read_unsigned(&in), length = 0;
    const unsigned char *method = read_string(&in, &length);
    if (in.bad || parts < 4 || id > UINT32_MAX)
        return "this is no REQUEST";
    if (lost) {
        fail(id, "rpc.DescriptorsLost", "descriptors were lost");
    } else if (is(method, length, "rpc.ping")) {
        answer_nil(id);
    } else if (is(method, length, "Adder.add")) {
        add(id, &in);
    } else {
        char message[200];
        snprintf(message, sizeof message, "there is no method %.*s", length > 100 ? 0 : (int)length, (const char *)method);
        fail(id, "rpc.MethodNotFound", message);
    }
    return NULL;
}

/* Close what came along: nothing here takes a descriptor. Credentials come, too, since the socket is one of a pair. */
static void close_descriptors(struct msghdr *received) {
    for (struct cmsghdr *each = CMSG_FIRSTHDR(received); each != NULL; each = CMSG_NXTHDR(received, each)) {
        if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; at + sizeof(int) <= each->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int came;
            memcpy(&came, CMSG_DATA(each) + at, sizeof came);
            close(came);
        }
    }
}

int main(void) {
    static unsigned char packet[MAX_PACKET];
    static union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    const char *number = getenv("SEQRPC_FD");
    fd = number == NULL ? 3 : atoi(number);
    for (;;) {
        struct iovec data = {packet, sizeof packet};
        struct msghdr received = {
            .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        ssize_t size = recvmsg(fd, &received, MSG_CMSG_CLOEXEC);
        if (size < 0 && (errno == EINTR || errno == ECONNRESET))
            continue; /* after ECONNRESET comes what was sent before, and then the end */
        if (size < 0) {
            perror("worker: recvmsg");
            return 1;
        }
        close_descriptors(&received);
        if (size == 0)
            return 0;
        const char *wrong = "a packet has 65,536 bytes at most";
        if (!(received.msg_flags & MSG_TRUNC))
            wrong = take_message(packet, (size_t)size, received.msg_flags & MSG_CTRUNC);
        if (wrong != NULL) {
            struct writer out = {.size = 0};
            put(&out, 0x92, 1);
            put(&out, CLOSING, 1);
            put_string(&out, wrong);
            send_packet(&out);
            fprintf(stderr, "worker: %s\n", wrong);
            return 1;
        }
    }
}
