/* A client of a seqrpc service in C, with wire.c from docs/protocol.md alone: no library but the C library.
 *
 *     cc -std=c11 -o client client.c wire.c && ./client /run/foreign.sock
 *
 * It calls the service of tests/support/foreign_service.py in every way that the page knows, and prints each answer on
 * a line; values.c does the same with streams, channels, buffers and long messages. It ends with status 0 if every
 * packet could be sent, received and read; whether the answers are right is for the reader to judge.
 */

#define _GNU_SOURCE
#include "wire.h"

#include <err.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int file_holding(const char *text)
{
    int fd = memfd_create("text", MFD_CLOEXEC);
    if (fd < 0 || pwrite(fd, text, strlen(text), 0) < 0)
        err(1, "memfd_create");
    return fd;
}

/* The calls. */

static void call_by_position(int sock, struct message *p)
{
    begin_request(p, 1, "Foreign.add", false);
    put_array(p, 2);
    put_uint(p, 2);
    put_uint(p, 40);
    send_message(sock, p);
    print_answer(sock, "by position");
}

static void call_by_name(int sock, struct message *p)
{
    begin_request(p, 4294967295, "Foreign.add", false);
    put_map(p, 2);
    put_string(p, "b");
    put_uint(p, 1000000);
    put_string(p, "a");
    put_uint(p, 1);
    send_message(sock, p);
    print_answer(sock, "by name");
}

static void pass_descriptors(int sock, struct message *p)
{
    int first = file_holding("first"), second = file_holding("second one");
    begin_request(p, 2, "Foreign.sizes", false);
    put_array(p, 1);
    put_array(p, 2);
    put_extension(p, DESCRIPTOR, first);
    put_extension(p, DESCRIPTOR, second);
    send_message(sock, p);
    close(first); /* what the other side has is a duplicate */
    close(second);
    print_answer(sock, "descriptors passed");
}

static void get_descriptors(int sock, struct message *p)
{
    begin_request(p, 3, "Foreign.files", false);
    put_array(p, 2);
    put_string(p, "from Python");
    put_string(p, "to C");
    send_message(sock, p);
    print_answer(sock, "descriptors got");
}

static void be_refused(int sock, struct message *p)
{
    begin_request(p, 4, "Foreign.forbidden", false);
    put_array(p, 1);
    put_extension(p, DESCRIPTOR, 0);
    send_message(sock, p);
    print_answer(sock, "refused");
    begin_request(p, 5, "Foreign.nothing", false);
    put_array(p, 0);
    send_message(sock, p);
    print_answer(sock, "no such method");
    begin_request(p, 6, "Foreign.add", false);
    put_array(p, 1);
    put_string(p, "two");
    send_message(sock, p);
    print_answer(sock, "wrong arguments");
    begin_request(p, 7, "Foreign.fail", false);
    put_array(p, 0);
    send_message(sock, p);
    print_answer(sock, "an error of the service's own");
}

static void cancel(int sock, struct message *p)
{
    begin_request(p, 8, "Foreign.wait", false);
    put_array(p, 0);
    send_message(sock, p);
    begin_request(p, 9, "Foreign.waiting", false); /* answered first, although it was sent last */
    put_array(p, 0);
    send_message(sock, p);
    print_answer(sock, "waiting");
    begin(p);
    put_array(p, 2);
    put_uint(p, CANCEL);
    put_uint(p, 8);
    send_message(sock, p);
    print_answer(sock, "cancelled");
    begin_request(p, 8, "Foreign.waiting", false); /* the id is free again */
    put_array(p, 0);
    send_message(sock, p);
    print_answer(sock, "no longer waiting");
}

static void set_deadline(int sock, struct message *p)
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
    send_message(sock, p);
    print_answer(sock, "too late");
}

static void notify(int sock, struct message *p)
{
    begin(p);
    put_array(p, 3);
    put_uint(p, NOTIFY);
    put_string(p, "Foreign.remember");
    put_array(p, 1);
    put_string(p, "noted");
    send_message(sock, p);
    begin_request(p, 11, "Foreign.remembered", false);
    put_array(p, 0);
    send_message(sock, p);
    print_answer(sock, "after a notification");
}

/* The service calls back: answer its request as it comes. */
static void be_called(int sock, struct message *p)
{
    begin_request(p, 12, "Foreign.call_back", false);
    put_array(p, 0);
    send_message(sock, p);
    if (!receive_message(sock, p))
        errx(1, "the service went away");
    get_array(p);
    int kind = get_uint(p), id = get_uint(p);
    printf("called back: ");
    print_message(p);
    putchar('\n');
    if (kind != REQUEST)
        errx(1, "a request was expected");
    begin(p);
    put_array(p, 4);
    put_uint(p, RESPONSE);
    put_uint(p, id);
    put_nil(p);
    put_string(p, "hello from C");
    send_message(sock, p);
    print_answer(sock, "the answer, after its own");
}

static void be_malformed(int sock, struct message *p)
{
    begin(p);
    put_array(p, 1);
    put_uint(p, REQUEST);
    send_message(sock, p);
    print_answer(sock, "malformed");
    print_answer(sock, "then");
}

int main(int argc, char **argv)
{
    static struct message packet;
    if (argc != 2)
        errx(2, "usage: %s PATH", argv[0]);
    int sock = connect_to(argv[1]);
    begin_request(&packet, 0, "rpc.ping", false);
    put_array(&packet, 0);
    send_message(sock, &packet);
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
