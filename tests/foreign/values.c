/* A client in C of values that are more than data: streams, channels, buffers, and messages too long for a packet.
 *
 *     cc -std=c11 -o values values.c wire.c && ./values /run/foreign.sock
 *
 * Like client.c it is from docs/protocol.md alone, and prints what comes. With a second argument, "death", it reads a
 * stream whose producer, the whole service, dies.
 */

#define _GNU_SOURCE
#include "wire.h"

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MANY = 5000, LARGE = 200000, TOO_LARGE = 1 << 20 /* with what is around it */ };

static void call_with_number(int sock, struct message *m, uint32_t id, const char *method, uint64_t number)
{
    begin_request(m, id, method, false);
    put_array(m, 1);
    put_uint(m, number);
    send_message(sock, m);
}

static void call_without(int sock, struct message *m, uint32_t id, const char *method)
{
    begin_request(m, id, method, false);
    put_array(m, 0);
    send_message(sock, m);
}

/* Call with one end of a new pair as the argument; return the other, which is ours. */
static int call_with_end(int sock, struct message *m, uint32_t id, const char *method, int type)
{
    int ours, theirs, on = 1;
    make_pair(&ours, &theirs);
    if (type == CHANNEL && setsockopt(ours, SOL_SOCKET, SO_PASSCRED, &on, sizeof on))
        err(1, "setsockopt");
    begin_request(m, id, method, false);
    put_array(m, 1);
    put_extension(m, type, theirs);
    send_message(sock, m);
    close(theirs);
    return ours;
}

/* Receive an answer and return the descriptor that is its result. */
static int answered_with(int sock, struct message *m, int type)
{
    if (!receive_message(sock, m) || get_array(m) != 4 || get_uint(m) != RESPONSE)
        errx(1, "an answer was expected");
    get_uint(m);
    if (!get_nil(m))
        errx(1, "an error was not expected");
    return get_extension(m, type);
}

/* Reading streams. */

/* Read the beginning of a packet of a stream; return how many items follow, or -1 at an end, which it prints. */
static int begin_items(int stream, struct message *m)
{
    if (!receive_message(stream, m)) {
        printf(", the producer died");
        return -1;
    }
    size_t count = get_array(m);
    if (get_uint(m) == ITEMS)
        return count - 1;
    printf(", then ");
    print_value(m);
    return -1;
}

static void read_items(int stream, struct message *m)
{
    for (int count; (count = begin_items(stream, m)) >= 0;) {
        for (int i = 0; i < count; i++) {
            printf(" ");
            print_value(m);
        }
        for (int i = 0; i < m->fd_count; i++)
            close(m->fds[i]);
    }
    putchar('\n');
    close(stream);
}

static void read_many(int sock, struct message *m)
{
    call_with_number(sock, m, 1, "Foreign.count", MANY);
    int stream = answered_with(sock, m, STREAM), packets = 0, items = 0;
    uint64_t sum = 0;
    printf("many items");
    for (int count; (count = begin_items(stream, m)) >= 0; packets++)
        for (int i = 0; i < count; i++, items++)
            sum += get_uint(m);
    printf(": %d items, their sum %llu, %s\n", items, (unsigned long long)sum,
           packets < items ? "some of them in one packet" : "each in its own packet");
    close(stream);
}

static void read_streams(int sock, struct message *m)
{
    read_many(sock, m);
    call_with_number(sock, m, 2, "Foreign.count_and_fail", 3);
    printf("a producer that fails:");
    read_items(answered_with(sock, m, STREAM), m);
    call_with_number(sock, m, 3, "Foreign.mixed", LARGE);
    printf("small, large, with a file:");
    read_items(answered_with(sock, m, STREAM), m);
}

static void want_no_more(int sock, struct message *m)
{
    call_without(sock, m, 4, "Foreign.endless");
    int stream = answered_with(sock, m, STREAM);
    if (begin_items(stream, m) < 1)
        errx(1, "an item was expected");
    close(stream);
    call_without(sock, m, 5, "Foreign.stopped");
    print_answer(sock, "the producer stopped");
}

static void see_the_producer_die(int sock, struct message *m)
{
    call_without(sock, m, 1, "Foreign.wait_after_item");
    int stream = answered_with(sock, m, STREAM);
    if (begin_items(stream, m) != 1)
        errx(1, "one item was expected");
    printf("a producer that dies: ");
    print_value(m);
    begin(m);
    put_array(m, 3);
    put_uint(m, NOTIFY);
    put_string(m, "Foreign.die");
    put_array(m, 0);
    send_message(sock, m);
    read_items(stream, m);
}

/* Writing streams. */

static void begin_packet(struct message *m, int kind, int count)
{
    begin(m);
    put_array(m, 1 + count);
    put_uint(m, kind);
}

static void send_items(int stream, struct message *m, int first, int count)
{
    begin_packet(m, ITEMS, count);
    while (count--)
        put_uint(m, first++);
    send_message(stream, m);
}

static void send_end(int stream, struct message *m)
{
    begin_packet(m, END, 1);
    put_nil(m);
    send_message(stream, m);
    close(stream);
}

static void send_failure(int stream, struct message *m)
{
    begin_packet(m, END, 1);
    put_array(m, 3);
    put_string(m, "client.Broken");
    put_string(m, "out of paper");
    put_uint(m, 7);
    send_message(stream, m);
    close(stream);
}

static void write_streams(int sock, struct message *m)
{
    int stream = call_with_end(sock, m, 6, "Foreign.total", STREAM);
    send_items(stream, m, 1, 10);
    send_items(stream, m, 100, 1);
    send_end(stream, m);
    print_answer(sock, "a total");
    stream = call_with_end(sock, m, 7, "Foreign.total", STREAM);
    send_items(stream, m, 1, 2);
    send_failure(stream, m);
    print_answer(sock, "a producer of ours fails");
    stream = call_with_end(sock, m, 8, "Foreign.why_it_ends", STREAM);
    send_items(stream, m, 1, 3);
    close(stream);
    print_answer(sock, "a producer of ours dies");
}

static void write_large_items(int sock, struct message *m)
{
    int stream = call_with_end(sock, m, 9, "Foreign.lengths", STREAM);
    begin_packet(m, ITEMS, 2);
    put_string(m, "four");
    put_repeated(m, 'x', LARGE);
    send_message(stream, m);
    send_end(stream, m);
    print_answer(sock, "large items");
}

static void write_to_nobody(int sock, struct message *m)
{
    int stream = call_with_end(sock, m, 10, "Foreign.first", STREAM);
    begin_packet(m, ITEMS, 1);
    put_uint(m, 42);
    while (try_to_send(stream, m))
        continue;
    close(stream);
    print_answer(sock, "the reader wants no more");
}

/* Channels. */

static void answer(int channel, struct message *m, uint32_t id, bool fails)
{
    begin(m);
    put_array(m, 4);
    put_uint(m, RESPONSE);
    put_uint(m, id);
    if (fails) {
        put_array(m, 3);
        put_string(m, "client.Shy");
        put_string(m, "no more");
        put_nil(m);
        put_nil(m);
    } else {
        put_nil(m);
        put_string(m, "hello from C");
    }
    send_message(channel, m);
}

/* Answer what comes, the third request with an error, until nobody holds the object any more. */
static void serve(int channel, struct message *m)
{
    for (int calls = 1; receive_message(channel, m); calls++) {
        get_array(m);
        uint64_t kind = get_uint(m), id = get_uint(m);
        printf("called%s: ", m->sender == getuid() ? " by the right user" : "");
        print_message(m);
        putchar('\n');
        if (kind != REQUEST)
            errx(1, "a request was expected");
        answer(channel, m, id, calls == 3);
    }
    printf("let go\n");
    close(channel);
}

static void serve_an_object(int sock, struct message *m)
{
    serve(call_with_end(sock, m, 11, "Foreign.greet_all", CHANNEL), m);
    print_answer(sock, "what it answered");
}

static void call_an_object(int sock, struct message *m)
{
    call_with_number(sock, m, 12, "Foreign.counter", 5);
    int channel = answered_with(sock, m, CHANNEL);
    call_with_number(channel, m, 0, "Counter.add", 2);
    print_answer(channel, "an object");
    call_with_number(channel, m, 1, "Counter.add", 3);
    print_answer(channel, "is the same still");
    call_with_number(channel, m, 2, "Foreign.counter", 0);
    print_answer(channel, "and no other");
    close(channel);
    call_with_number(sock, m, 13, "Foreign.wait_counters_closed", 1);
    print_answer(sock, "closed when it is let go");
}

static void lose_an_object(int sock, struct message *m)
{
    call_with_number(sock, m, 14, "Foreign.counter", 5);
    int channel = answered_with(sock, m, CHANNEL);
    call_without(channel, m, 0, "Counter.revoke");
    print_answer(channel, "taken back");
    print_answer(channel, "but the call is answered");
    print_answer(channel, "then");
    close(channel);
}

/* Messages too long for a packet. */

static void receive_spilled(int sock, struct message *m)
{
    call_with_number(sock, m, 15, "Foreign.repeat", LARGE);
    print_answer(sock, "a long answer");
    call_with_number(sock, m, 16, "Foreign.repeat_with_file", LARGE);
    print_answer(sock, "a long answer with a file");
}

static void begin_long_request(struct message *m, uint32_t id, size_t size)
{
    begin_request(m, id, "Foreign.length", false);
    put_array(m, 1);
    put_repeated(m, 'x', size);
}

static void send_long(int sock, struct message *m)
{
    begin_long_request(m, 17, LARGE);
    send_spilled(sock, m, 17);
    print_answer(sock, "a long request");
    begin_long_request(m, 18, LARGE);
    send_spilled(sock, m, -1);
    print_answer(sock, "one without an id");
    int file = sealed_file("of the file", 11);
    begin_request(m, 19, "Foreign.length_and_content", false);
    put_array(m, 2);
    put_repeated(m, 'x', LARGE);
    put_extension(m, DESCRIPTOR, file);
    send_spilled(sock, m, 19);
    close(file);
    print_answer(sock, "one with a file");
}

static void send_too_long(int sock, struct message *m)
{
    begin_long_request(m, 20, TOO_LARGE);
    send_spilled(sock, m, 20);
    print_answer(sock, "too long a request");
    begin_long_request(m, 21, TOO_LARGE);
    send_spilled(sock, m, -1);
    print_answer(sock, "one without an id");
    call_with_number(sock, m, 22, "Foreign.repeat", TOO_LARGE);
    print_answer(sock, "too long an answer");
    call_without(sock, m, 23, "rpc.ping");
    print_answer(sock, "the connection lives on");
}

/* Buffers. */

static void pass_buffers(int sock, struct message *m)
{
    long page = sysconf(_SC_PAGESIZE);
    char *content = calloc(2, page);
    if (!content)
        err(1, "calloc");
    strcpy(content, "from the beginning");
    strcpy(content + page, "from the second page");
    int file = sealed_file(content, 2 * page), same = dup(file);
    free(content);
    begin_request(m, 24, "Foreign.reversed", false);
    put_array(m, 2);
    put_buffer(m, file, 0, 18);
    put_buffer(m, same, page, 20);
    send_message(sock, m);
    close(file);
    close(same);
    print_answer(sock, "buffers");
}

int main(int argc, char **argv)
{
    static struct message message;
    if (argc < 2 || argc > 3 || (argc == 3 && strcmp(argv[2], "death")))
        errx(2, "usage: %s PATH [death]", argv[0]);
    int sock = connect_to(argv[1]);
    if (argc == 3) {
        see_the_producer_die(sock, &message);
        return fflush(stdout) ? 1 : 0;
    }
    read_streams(sock, &message);
    want_no_more(sock, &message);
    write_streams(sock, &message);
    write_large_items(sock, &message);
    write_to_nobody(sock, &message);
    serve_an_object(sock, &message);
    call_an_object(sock, &message);
    lose_an_object(sock, &message);
    receive_spilled(sock, &message);
    send_long(sock, &message);
    send_too_long(sock, &message);
    pass_buffers(sock, &message);
    return fflush(stdout) ? 1 : 0;
}
