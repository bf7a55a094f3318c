/* A client of a seqrpc service in C, from docs/protocol.md alone: no library but the C library.
 *
 *     cc -std=c11 -o client client.c && ./client /run/foreign.sock
 *
 * It calls the service of service.py in every way that the page knows, and prints each answer on a line. It ends with
 * status 0 if every packet could be sent, received and read; whether the answers are right is for the reader to judge.
 */

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PACKET = 65536, MAX_DESCRIPTORS = 253 };
enum { REQUEST = 0, RESPONSE = 1, NOTIFY = 2, CANCEL = 3, CLOSING = 5 };

/* A packet on its way out or in, and the descriptors that go with it. */
struct packet {
    uint8_t data[MAX_PACKET];
    size_t size;
    size_t position; /* of the reader */
    int fds[MAX_DESCRIPTORS];
    int fd_count;
};

/* Writing MessagePack. */

static void put(struct packet *p, const void *bytes, size_t size)
{
    if (p->size + size > MAX_PACKET)
        errx(1, "the message is too long");
    memcpy(p->data + p->size, bytes, size);
    p->size += size;
}

static void put_byte(struct packet *p, int byte)
{
    put(p, &(uint8_t){byte}, 1);
}

static void put_big_endian(struct packet *p, uint64_t value, int bytes)
{
    while (bytes--)
        put_byte(p, value >> 8 * bytes & 0xff);
}

static void put_uint(struct packet *p, uint64_t value)
{
    if (value < 0x80) {
        put_byte(p, value);
    } else {
        put_byte(p, 0xcf);
        put_big_endian(p, value, 8);
    }
}

static void put_array(struct packet *p, int count) /* up to 15 */
{
    put_byte(p, 0x90 | count);
}

static void put_map(struct packet *p, int count) /* up to 15 */
{
    put_byte(p, 0x80 | count);
}

static void put_string(struct packet *p, const char *text)
{
    size_t size = strlen(text);
    put_byte(p, 0xda);
    put_big_endian(p, size, 2);
    put(p, text, size);
}

static void put_descriptor(struct packet *p, int fd)
{
    put_byte(p, 0xd4); /* an extension with one byte of data: its type, and the index */
    put_byte(p, 1);
    put_byte(p, p->fd_count);
    p->fds[p->fd_count++] = fd;
}

/* Begin a REQUEST; its params follow. */
static void begin_request(struct packet *p, uint32_t id, const char *method, bool with_options)
{
    p->size = p->fd_count = 0;
    put_array(p, with_options ? 5 : 4);
    put_uint(p, REQUEST);
    put_uint(p, id);
    put_string(p, method);
}

/* Reading MessagePack. */

static uint64_t get_big_endian(struct packet *p, int bytes)
{
    uint64_t value = 0;
    if (p->position + bytes > p->size)
        errx(1, "the packet ends too early");
    while (bytes--)
        value = value << 8 | p->data[p->position++];
    return value;
}

static void print_string(struct packet *p, uint64_t size)
{
    if (size > p->size - p->position)
        errx(1, "a string is longer than its packet");
    printf("\"%.*s\"", (int)size, (const char *)p->data + p->position);
    p->position += size;
}

static void print_value(struct packet *p);

static void print_values(struct packet *p, uint64_t count, const char *brackets, bool is_map)
{
    putchar(brackets[0]);
    for (uint64_t i = 0; i < count; i++) {
        if (i)
            printf(", ");
        print_value(p);
        if (is_map) {
            printf(": ");
            print_value(p);
        }
    }
    putchar(brackets[1]);
}

static void print_descriptor(struct packet *p)
{
    int type = get_big_endian(p, 1), index = get_big_endian(p, 1);
    if (type != 1 || index >= p->fd_count)
        errx(1, "extension type %d, index %d of %d", type, index, p->fd_count);
    printf("descriptor %d", index);
}

static void print_value(struct packet *p)
{
    int head = get_big_endian(p, 1);
    if (head < 0x80)
        printf("%d", head);
    else if (head < 0x90)
        print_values(p, head & 0x0f, "{}", true);
    else if (head < 0xa0)
        print_values(p, head & 0x0f, "[]", false);
    else if (head < 0xc0)
        print_string(p, head & 0x1f);
    else if (head >= 0xe0)
        printf("%d", head - 0x100);
    else
        switch (head) {
        case 0xc0: printf("nil"); break;
        case 0xc2: printf("false"); break;
        case 0xc3: printf("true"); break;
        case 0xcc: printf("%llu", (unsigned long long)get_big_endian(p, 1)); break;
        case 0xcd: printf("%llu", (unsigned long long)get_big_endian(p, 2)); break;
        case 0xce: printf("%llu", (unsigned long long)get_big_endian(p, 4)); break;
        case 0xcf: printf("%llu", (unsigned long long)get_big_endian(p, 8)); break;
        case 0xd0: printf("%d", (int8_t)get_big_endian(p, 1)); break;
        case 0xd1: printf("%d", (int16_t)get_big_endian(p, 2)); break;
        case 0xd2: printf("%d", (int32_t)get_big_endian(p, 4)); break;
        case 0xd3: printf("%lld", (long long)get_big_endian(p, 8)); break;
        case 0xd4: print_descriptor(p); break;
        case 0xd9: print_string(p, get_big_endian(p, 1)); break;
        case 0xda: print_string(p, get_big_endian(p, 2)); break;
        case 0xdc: print_values(p, get_big_endian(p, 2), "[]", false); break;
        case 0xde: print_values(p, get_big_endian(p, 2), "{}", true); break;
        default: errx(1, "no need was foreseen for values that begin with %#x", head);
        }
}

/* The socket. */

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (sock < 0)
        err(1, "socket");
    if (strlen(path) >= sizeof address.sun_path)
        errx(1, "the path is too long");
    strcpy(address.sun_path, path);
    if (connect(sock, (struct sockaddr *)&address, sizeof address))
        err(1, "connect");
    return sock;
}

static void send_packet(int sock, struct packet *p)
{
    struct iovec part = {p->data, p->size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof p->fds)] = {0};
    if (p->fd_count) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(p->fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(p->fd_count * sizeof(int));
        memcpy(CMSG_DATA(rights), p->fds, p->fd_count * sizeof(int));
    }
    if (sendmsg(sock, &message, MSG_EOR | MSG_NOSIGNAL) != (ssize_t)p->size)
        err(1, "sendmsg");
}

/* Receive a packet; return false at the end of the connection. */
static bool receive_packet(int sock, struct packet *p)
{
    struct iovec part = {p->data, MAX_PACKET};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof p->fds)];
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == ECONNRESET) /* once, ahead of what was sent earlier */
        return receive_packet(sock, p);
    if (size < 0)
        err(1, "recvmsg");
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        errx(1, "the packet was cut");
    p->size = size;
    p->position = p->fd_count = 0;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        p->fd_count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(p->fds, CMSG_DATA(rights), p->fd_count * sizeof(int));
    }
    return size > 0;
}

/* Receive a packet, print it after a title, and print the content of the files that came with it. */
static void print_answer(int sock, const char *title)
{
    static struct packet answer;
    printf("%s: ", title);
    if (!receive_packet(sock, &answer)) {
        printf("the end\n");
        return;
    }
    print_value(&answer);
    if (answer.position != answer.size)
        errx(1, "bytes are left over");
    for (int i = 0; i < answer.fd_count; i++) {
        char content[100];
        ssize_t size = pread(answer.fds[i], content, sizeof content, 0);
        if (size < 0)
            err(1, "pread");
        printf(", holding \"%.*s\"", (int)size, content);
        close(answer.fds[i]);
    }
    putchar('\n');
}

static int file_holding(const char *text)
{
    int fd = memfd_create("text", MFD_CLOEXEC);
    if (fd < 0 || pwrite(fd, text, strlen(text), 0) < 0)
        err(1, "memfd_create");
    return fd;
}

/* The calls. */

static void call_by_position(int sock, struct packet *p)
{
    begin_request(p, 1, "Foreign.add", false);
    put_array(p, 2);
    put_uint(p, 2);
    put_uint(p, 40);
    send_packet(sock, p);
    print_answer(sock, "by position");
}

static void call_by_name(int sock, struct packet *p)
{
    begin_request(p, 4294967295, "Foreign.add", false);
    put_map(p, 2);
    put_string(p, "b");
    put_uint(p, 1000000);
    put_string(p, "a");
    put_uint(p, 1);
    send_packet(sock, p);
    print_answer(sock, "by name");
}

static void pass_descriptors(int sock, struct packet *p)
{
    int first = file_holding("first"), second = file_holding("second one");
    begin_request(p, 2, "Foreign.sizes", false);
    put_array(p, 1);
    put_array(p, 2);
    put_descriptor(p, first);
    put_descriptor(p, second);
    send_packet(sock, p);
    close(first); /* what the other side has is a duplicate */
    close(second);
    print_answer(sock, "descriptors passed");
}

static void get_descriptors(int sock, struct packet *p)
{
    begin_request(p, 3, "Foreign.files", false);
    put_array(p, 2);
    put_string(p, "from Python");
    put_string(p, "to C");
    send_packet(sock, p);
    print_answer(sock, "descriptors got");
}

static void be_refused(int sock, struct packet *p)
{
    begin_request(p, 4, "Foreign.forbidden", false);
    put_array(p, 1);
    put_descriptor(p, 0);
    send_packet(sock, p);
    print_answer(sock, "refused");
    begin_request(p, 5, "Foreign.nothing", false);
    put_array(p, 0);
    send_packet(sock, p);
    print_answer(sock, "no such method");
    begin_request(p, 6, "Foreign.add", false);
    put_array(p, 1);
    put_string(p, "two");
    send_packet(sock, p);
    print_answer(sock, "wrong arguments");
    begin_request(p, 7, "Foreign.fail", false);
    put_array(p, 0);
    send_packet(sock, p);
    print_answer(sock, "an error of the service's own");
}

static void cancel(int sock, struct packet *p)
{
    begin_request(p, 8, "Foreign.wait", false);
    put_array(p, 0);
    send_packet(sock, p);
    begin_request(p, 9, "Foreign.waiting", false); /* answered first, although it was sent last */
    put_array(p, 0);
    send_packet(sock, p);
    print_answer(sock, "waiting");
    p->size = p->fd_count = 0;
    put_array(p, 2);
    put_uint(p, CANCEL);
    put_uint(p, 8);
    send_packet(sock, p);
    print_answer(sock, "cancelled");
    begin_request(p, 8, "Foreign.waiting", false); /* the id is free again */
    put_array(p, 0);
    send_packet(sock, p);
    print_answer(sock, "no longer waiting");
}

static void set_deadline(int sock, struct packet *p)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    begin_request(p, 10, "Foreign.wait", true);
    put_array(p, 0);
    put_map(p, 2);
    put_string(p, "deadline");
    put_uint(p, now.tv_sec * UINT64_C(1000000000) + now.tv_nsec + 20 * 1000 * 1000);
    put_string(p, "an option that is not known");
    put_array(p, 0);
    send_packet(sock, p);
    print_answer(sock, "too late");
}

static void notify(int sock, struct packet *p)
{
    p->size = p->fd_count = 0;
    put_array(p, 3);
    put_uint(p, NOTIFY);
    put_string(p, "Foreign.remember");
    put_array(p, 1);
    put_string(p, "noted");
    send_packet(sock, p);
    begin_request(p, 11, "Foreign.remembered", false);
    put_array(p, 0);
    send_packet(sock, p);
    print_answer(sock, "after a notification");
}

/* The service calls back: answer its request as it comes. */
static void be_called(int sock, struct packet *p)
{
    begin_request(p, 12, "Foreign.call_back", false);
    put_array(p, 0);
    send_packet(sock, p);
    if (!receive_packet(sock, p))
        errx(1, "the service went away");
    p->position = 2; /* the array, and its kind */
    int kind = p->data[1], id = get_big_endian(p, 1);
    p->position = 0;
    printf("called back: ");
    print_value(p);
    putchar('\n');
    if (kind != REQUEST || id > 127)
        errx(1, "a request was expected, with a low number");
    p->size = p->fd_count = 0;
    put_array(p, 4);
    put_uint(p, RESPONSE);
    put_uint(p, id);
    put_byte(p, 0xc0);
    put_string(p, "hello from C");
    send_packet(sock, p);
    print_answer(sock, "the answer, after its own");
}

static void be_malformed(int sock, struct packet *p)
{
    p->size = p->fd_count = 0;
    put_array(p, 1);
    put_uint(p, REQUEST);
    send_packet(sock, p);
    print_answer(sock, "malformed");
    print_answer(sock, "then");
}

int main(int argc, char **argv)
{
    static struct packet packet;
    if (argc != 2)
        errx(2, "usage: %s PATH", argv[0]);
    int sock = connect_to(argv[1]);
    begin_request(&packet, 0, "rpc.ping", false);
    put_array(&packet, 0);
    send_packet(sock, &packet);
    print_answer(sock, "ping");
    call_by_position(sock, &packet);
    call_by_name(sock, &packet);
    pass_descriptors(sock, &packet);
    get_descriptors(sock, &packet);
    be_refused(sock, &packet);
    cancel(sock, &packet);
    set_deadline(sock, &packet);
    notify(sock, &packet);
    be_called(sock, &packet);
    be_malformed(sock, &packet);
    return fflush(stdout) ? 1 : 0;
}
