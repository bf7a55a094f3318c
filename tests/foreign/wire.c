#define _GNU_SOURCE
#include "wire.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };
enum { PRINTED = 100 }; /* bytes of a string beyond which only its size is printed */

/* Writing. */

void begin(struct message *m)
{
    if (m->mapped) {
        munmap(m->bytes, m->size);
        m->bytes = NULL;
        m->room = 0;
    }
    m->mapped = false;
    m->size = m->position = m->fd_count = 0;
}

static void make_room(struct message *m, size_t room)
{
    if (m->room >= room)
        return;
    m->room = 2 * room;
    m->bytes = realloc(m->bytes, m->room);
    if (!m->bytes)
        err(1, "realloc");
}

static void put(struct message *m, const void *bytes, size_t size)
{
    make_room(m, m->size + size);
    memcpy(m->bytes + m->size, bytes, size);
    m->size += size;
}

static void put_byte(struct message *m, int byte)
{
    put(m, &(uint8_t){byte}, 1);
}

static void put_big_endian(struct message *m, uint64_t value, int bytes)
{
    while (bytes--)
        put_byte(m, value >> 8 * bytes & 0xff);
}

void put_uint(struct message *m, uint64_t value)
{
    if (value < 0x80) {
        put_byte(m, value);
    } else {
        put_byte(m, 0xcf);
        put_big_endian(m, value, 8);
    }
}

void put_nil(struct message *m)
{
    put_byte(m, 0xc0);
}

void put_array(struct message *m, int count)
{
    put_byte(m, 0x90 | count);
}

void put_map(struct message *m, int count)
{
    put_byte(m, 0x80 | count);
}

void put_string(struct message *m, const char *text)
{
    size_t size = strlen(text);
    put_byte(m, 0xda);
    put_big_endian(m, size, 2);
    put(m, text, size);
}

void put_repeated(struct message *m, char letter, size_t count)
{
    put_byte(m, 0xdb);
    put_big_endian(m, count, 4);
    make_room(m, m->size + count);
    memset(m->bytes + m->size, letter, count);
    m->size += count;
}

static void put_index(struct message *m, int fd)
{
    put_byte(m, m->fd_count);
    m->fds[m->fd_count++] = fd;
}

void put_extension(struct message *m, int type, int fd)
{
    put_byte(m, 0xd4); /* an extension with one byte of data */
    put_byte(m, type);
    put_index(m, fd);
}

void put_buffer(struct message *m, int fd, uint64_t offset, uint64_t length)
{
    put_byte(m, 0xc7); /* an extension of a size that follows */
    put_byte(m, 17);
    put_byte(m, BUFFER);
    put_index(m, fd);
    put_big_endian(m, offset, 8);
    put_big_endian(m, length, 8);
}

void begin_request(struct message *m, uint32_t id, const char *method, bool with_options)
{
    begin(m);
    put_array(m, with_options ? 5 : 4);
    put_uint(m, REQUEST);
    put_uint(m, id);
    put_string(m, method);
}

/* Reading. */

static uint64_t get_big_endian(struct message *m, int bytes)
{
    uint64_t value = 0;
    if (m->position + bytes > m->size)
        errx(1, "the message ends too early");
    while (bytes--)
        value = value << 8 | m->bytes[m->position++];
    return value;
}

uint64_t get_uint(struct message *m)
{
    int head = get_big_endian(m, 1);
    if (head < 0x80)
        return head;
    if (head < 0xcc || head > 0xcf)
        errx(1, "an unsigned integer was expected, not %#x", head);
    return get_big_endian(m, 1 << (head - 0xcc));
}

size_t get_array(struct message *m)
{
    int head = get_big_endian(m, 1);
    if (head >= 0x90 && head < 0xa0)
        return head & 0x0f;
    if (head != 0xdc && head != 0xdd)
        errx(1, "an array was expected, not %#x", head);
    return get_big_endian(m, head == 0xdc ? 2 : 4);
}

bool get_nil(struct message *m)
{
    if (m->position == m->size || m->bytes[m->position] != 0xc0)
        return false;
    m->position++;
    return true;
}

static int get_index(struct message *m)
{
    int index = get_big_endian(m, 1);
    if (index >= m->fd_count || m->fds[index] < 0)
        errx(1, "index %d of %d descriptors", index, m->fd_count);
    return index;
}

static int take(struct message *m, int index)
{
    int fd = m->fds[index];
    m->fds[index] = -1;
    return fd;
}

int get_extension(struct message *m, int type)
{
    if (get_big_endian(m, 1) != 0xd4 || (int)get_big_endian(m, 1) != type)
        errx(1, "an extension of type %d was expected", type);
    return take(m, get_index(m));
}

static void print_string(struct message *m, uint64_t size)
{
    if (size > m->size - m->position)
        errx(1, "a string is longer than its message");
    if (size > PRINTED)
        printf("a string of %llu", (unsigned long long)size);
    else
        printf("\"%.*s\"", (int)size, (const char *)m->bytes + m->position);
    m->position += size;
}

static void print_values(struct message *m, uint64_t count, const char *brackets, bool is_map)
{
    putchar(brackets[0]);
    for (uint64_t i = 0; i < count; i++) {
        if (i)
            printf(", ");
        print_value(m);
        if (is_map) {
            printf(": ");
            print_value(m);
        }
    }
    putchar(brackets[1]);
}

static void print_extension(struct message *m)
{
    static const char *const names[] = {[DESCRIPTOR] = "descriptor", [STREAM] = "stream", [CHANNEL] = "channel"};
    int type = get_big_endian(m, 1);
    if (type < DESCRIPTOR || type > CHANNEL)
        errx(1, "extension type %d, with one byte", type);
    printf("%s %d", names[type], get_index(m));
}

static void print_buffer(struct message *m)
{
    if (get_big_endian(m, 1) != 17 || get_big_endian(m, 1) != BUFFER)
        errx(1, "an extension that is no buffer");
    int index = get_index(m), fd = take(m, index);
    uint64_t offset = get_big_endian(m, 8), length = get_big_endian(m, 8);
    char *content = map_sealed(fd, offset, length, false);
    printf("buffer %d, from %llu \"%.*s\"", index, (unsigned long long)offset, (int)length, content);
    munmap(content, length);
    close(fd);
}

void print_value(struct message *m)
{
    int head = get_big_endian(m, 1);
    if (head < 0x80)
        printf("%d", head);
    else if (head < 0x90)
        print_values(m, head & 0x0f, "{}", true);
    else if (head < 0xa0)
        print_values(m, head & 0x0f, "[]", false);
    else if (head < 0xc0)
        print_string(m, head & 0x1f);
    else if (head >= 0xe0)
        printf("%d", head - 0x100);
    else
        switch (head) {
        case 0xc0: printf("nil"); break;
        case 0xc2: printf("false"); break;
        case 0xc3: printf("true"); break;
        case 0xc7: print_buffer(m); break;
        case 0xcc: printf("%llu", (unsigned long long)get_big_endian(m, 1)); break;
        case 0xcd: printf("%llu", (unsigned long long)get_big_endian(m, 2)); break;
        case 0xce: printf("%llu", (unsigned long long)get_big_endian(m, 4)); break;
        case 0xcf: printf("%llu", (unsigned long long)get_big_endian(m, 8)); break;
        case 0xd0: printf("%d", (int8_t)get_big_endian(m, 1)); break;
        case 0xd1: printf("%d", (int16_t)get_big_endian(m, 2)); break;
        case 0xd2: printf("%d", (int32_t)get_big_endian(m, 4)); break;
        case 0xd3: printf("%lld", (long long)get_big_endian(m, 8)); break;
        case 0xd4: print_extension(m); break;
        case 0xd9: print_string(m, get_big_endian(m, 1)); break;
        case 0xda: print_string(m, get_big_endian(m, 2)); break;
        case 0xdb: print_string(m, get_big_endian(m, 4)); break;
        case 0xdc: print_values(m, get_big_endian(m, 2), "[]", false); break;
        case 0xde: print_values(m, get_big_endian(m, 2), "{}", true); break;
        default: errx(1, "no need was foreseen for values that begin with %#x", head);
        }
}

static void print_file(int fd)
{
    char content[PRINTED];
    ssize_t size = pread(fd, content, sizeof content, 0);
    if (size < 0)
        err(1, "pread");
    printf(", holding \"%.*s\"", (int)size, content);
}

void print_message(struct message *m)
{
    m->position = 0;
    print_value(m);
    if (m->position != m->size)
        errx(1, "bytes are left over");
    for (int i = 0; i < m->fd_count; i++)
        if (m->fds[i] >= 0) {
            print_file(m->fds[i]);
            close(take(m, i));
        }
}

/* Sockets. */

int connect_to(const char *path)
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

void make_pair(int *ours, int *theirs)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        err(1, "socketpair");
    *ours = ends[0];
    *theirs = ends[1];
}

/* Send one packet; return false, with errno, if the kernel does not take it. */
static bool send_packet(int sock, struct message *m)
{
    struct iovec part = {m->bytes, m->size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof m->fds)] = {0};
    if (m->fd_count) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(m->fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(m->fd_count * sizeof(int));
        memcpy(CMSG_DATA(rights), m->fds, m->fd_count * sizeof(int));
    }
    return sendmsg(sock, &message, MSG_EOR | MSG_NOSIGNAL) == (ssize_t)m->size;
}

bool try_to_send(int sock, struct message *m)
{
    if (send_packet(sock, m))
        return true;
    if (errno != EPIPE && errno != ECONNRESET)
        err(1, "sendmsg");
    return false;
}

void send_message(int sock, struct message *m)
{
    if (m->size > MAX_PACKET)
        send_spilled(sock, m, -1);
    else if (!send_packet(sock, m))
        err(1, "sendmsg");
}

void send_spilled(int sock, struct message *m, int64_t id)
{
    struct message packet = {0};
    int file = sealed_file(m->bytes, m->size);
    if (m->fd_count == MAX_DESCRIPTORS)
        errx(1, "too many descriptors for a spilled message");
    put_array(&packet, id < 0 ? 2 : 3);
    put_uint(&packet, SPILLED);
    put_uint(&packet, m->size);
    if (id >= 0)
        put_uint(&packet, id);
    packet.fds[0] = file;
    memcpy(packet.fds + 1, m->fds, m->fd_count * sizeof(int));
    packet.fd_count = m->fd_count + 1;
    send_message(sock, &packet);
    close(file);
    free(packet.bytes);
}

static void take_control(struct message *m, struct msghdr *message)
{
    m->fd_count = 0;
    m->sender = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_RIGHTS) {
            m->fd_count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(m->fds, CMSG_DATA(c), m->fd_count * sizeof(int));
        } else if (c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred credentials;
            memcpy(&credentials, CMSG_DATA(c), sizeof credentials);
            m->sender = credentials.uid;
        }
    }
}

/* Put the message in place of the SPILLED that stands for it. */
static void read_spilled(struct message *m)
{
    size_t count = get_array(m), length;
    get_uint(m); /* the kind */
    length = get_uint(m);
    if ((count != 2 && count != 3) || !m->fd_count)
        errx(1, "SPILLED has %zu elements, and %d descriptors", count, m->fd_count);
    free(m->bytes);
    m->bytes = map_sealed(m->fds[0], 0, length, true);
    m->size = length;
    m->mapped = true;
    m->position = m->room = 0;
    close(m->fds[0]);
    memmove(m->fds, m->fds + 1, --m->fd_count * sizeof(int));
}

bool receive_message(int sock, struct message *m)
{
    begin(m);
    make_room(m, MAX_PACKET);
    struct iovec part = {m->bytes, MAX_PACKET};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof m->fds) + CMSG_SPACE(sizeof(struct ucred))];
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == ECONNRESET) /* once, ahead of what was sent earlier */
        return receive_message(sock, m);
    if (size < 0)
        err(1, "recvmsg");
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        errx(1, "the packet was cut");
    m->size = size;
    take_control(m, &message);
    if (size > 1 && m->bytes[1] == SPILLED) /* arrays of up to 15 have a head of one byte */
        read_spilled(m);
    return size > 0;
}

void print_answer(int sock, const char *title)
{
    static struct message answer;
    printf("%s: ", title);
    if (receive_message(sock, &answer))
        print_message(&answer);
    else
        printf("the end");
    putchar('\n');
}

/* Memory files. */

int sealed_file(const void *content, size_t size)
{
    int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        err(1, "memfd_create");
    if (write(fd, content, size) != (ssize_t)size)
        err(1, "write");
    if (fcntl(fd, F_ADD_SEALS, SEALS))
        err(1, "fcntl");
    return fd;
}

void *map_sealed(int fd, uint64_t offset, uint64_t length, bool whole)
{
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS)
        errx(1, "what should be a sealed memory file has the seals %#x", seals);
    if (fstat(fd, &status))
        err(1, "fstat");
    uint64_t size = status.st_size;
    if (length > size || offset > size - length || (whole && length != size))
        errx(1, "a memory file is shorter, or longer, than was promised");
    void *content = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, offset);
    if (content == MAP_FAILED)
        err(1, "mmap");
    return content;
}
