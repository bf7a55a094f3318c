/* Descriptors that came with a packet: owned by objects of Python as soon as they are here, and before anything else.
 */

#include "lane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Return the owner of a descriptor that `sender`, a uid or None, sent, as received_fd does; it closes it when it goes.
   NULL with an exception; then the descriptor is still the caller's. */
static PyObject *
own(int fd, PyObject *sender)
{
    PyTypeObject *type = (PyTypeObject *)the_OwnedFd;
    PyObject *number = PyLong_FromLong(fd), *generation = PyObject_GetAttr(the_forks, str_generation);
    PyObject *owned = number == NULL || generation == NULL ? NULL : type->tp_alloc(type, 0);
    if (owned != NULL) {
        set_slot(owned, owned__generation, generation);
        set_slot(owned, owned__sender, sender);
        set_slot(owned, owned__booked, the_nowhere);
        set_slot(owned, owned__fd, number);
    }
    Py_XDECREF(number);
    Py_XDECREF(generation);
    return owned;
}

/* Whether the closer wants to see a number: it is higher than any that it has thought about. -1 with an exception. */
static int
is_high(int fd)
{
    PyObject *high = PyObject_GetAttr(the_closer, str__high);
    long seen = high == NULL ? -1 : PyLong_AsLong(high);
    Py_XDECREF(high);
    return PyErr_Occurred() ? -1 : fd > seen;
}

/* Have the closer see the highest number that is taken, and end the wake-up if there is little room, as Intake does. */
static int
look_for_room(Lane *lane, int last)
{
    int high = is_high(last);
    PyObject *told = high > 0 ? PyObject_CallMethod(the_closer, "saw", "i", last) : NULL;
    if (high < 0 || (high && told == NULL)) {
        return -1;
    }
    Py_XDECREF(told);
    PyObject *careful = PyObject_GetAttr(the_closer, str_careful);
    if (careful != NULL && careful != Py_False) {
        Py_SETREF(careful, PyObject_CallMethodNoArgs(lane->intake, str_end_wakeup));
    }
    Py_XDECREF(careful);
    return careful == NULL ? -1 : 0;
}

PyObject *
own_descriptors(Lane *lane, const Arrival *arrival)
{
    PyObject *fds = PyList_New(0), *sender = NULL;
    int owned = 0;
    if (fds == NULL) {
        goto failed;
    }
    sender = lane->names_senders && arrival->sender != Py_None ? PyObject_GetAttr(arrival->sender, str_uid)
                                                               : Py_XNewRef(slot(lane->inbox, inbox_uid));
    for (; sender != NULL && owned < arrival->count; owned++) {
        PyObject *one_of_them = own(arrival->fds[owned], sender);
        if (one_of_them == NULL) {
            goto failed;
        }
        int failed = PyList_Append(fds, one_of_them);
        Py_DECREF(one_of_them); /* if it is not in the list, this closes it */
        if (failed) {
            owned++;
            goto failed;
        }
    }
    if (sender == NULL || look_for_room(lane, arrival->fds[arrival->count - 1]) < 0) {
        goto failed;
    }
    Py_DECREF(sender);
    return fds;
failed:
    for (; owned < arrival->count; owned++) {
        close(arrival->fds[owned]);
    }
    Py_XDECREF(sender);
    if (fds != NULL) {
        close_owned(fds);
        Py_DECREF(fds);
    }
    return NULL;
}

int
book_owned(Lane *lane, PyObject *fds)
{
    PyObject *booked = slot(lane->account, account_fds);
    for (Py_ssize_t index = 0; index < PyList_GET_SIZE(fds); index++) {
        PyObject *owned = PyList_GET_ITEM(fds, index);
        set_slot(owned, owned__booked, booked);
        if (PySet_Add(booked, slot(owned, owned__fd)) < 0) {
            return -1;
        }
    }
    return 0;
}

void
close_owned(PyObject *fds)
{
    PyObject *raised = PyErr_Occurred() ? caught_any() : NULL;
    PyObject *told = PyObject_CallOneArg(the_close_all, fds);
    Py_XDECREF(told);
    if (raised != NULL) {
        PyErr_Clear(); /* what came first says more */
        PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
        Py_DECREF(raised);
    }
}

/* ---- What closes at once: seqrpc.kernel.kinds.closes_at_once, by questions that take the kernel less time ---- */

#define MEMORY_DEVICES 1 /* the major number of /dev/null and its like */

/* Ask what the kernel knows of a file, without anybody else being asked. False if it does not tell all that is asked.
 */
static bool
look_at(int fd, struct statx *found)
{
    unsigned wanted = STATX_TYPE | STATX_MNT_ID;
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, wanted, found) == 0 &&
           (found->stx_mask & wanted) == wanted;
}

/* The mount that the memory devices are of, as it was when it was asked for first; -1 if that is not told. */
static int
mount_of_devices(void)
{
    static int known = -1;
    if (known == -1) {
        struct statx found;
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (null != -1) {
            known = look_at(null, &found) ? (int)found.stx_mnt_id : -1;
            close(null);
        }
    }
    return known;
}

/* Whether a file is of the mount of the memory devices: no other file system is asked about it, nor a name looked for.
   False, too, if that cannot be told so. */
static bool
is_of_devices(int fd)
{
    struct file_handle handle = {.handle_bytes = 0}; /* there is no room for one: only the mount is told */
    int mount = -1;
    return name_to_handle_at(fd, "", &handle, &mount, AT_EMPTY_PATH) == -1 && errno == EOVERFLOW &&
           mount == mount_of_devices();
}

/* Whether a file on that mount is one of the memory devices: null, zero, full, random, urandom. */
static bool
is_memory_device(int fd)
{
    struct statx found;
    if (!look_at(fd, &found) || (int)found.stx_mnt_id != mount_of_devices() || !S_ISCHR(found.stx_mode) ||
        found.stx_rdev_major != MEMORY_DEVICES) {
        return false;
    }
    unsigned minor = found.stx_rdev_minor;
    return minor == 3 || minor == 5 || minor == 7 || minor == 8 || minor == 9;
}

/* Whether a file is a memory file, which only those have such seals of, and a small one. */
static bool
is_small_memory_file(int fd)
{
    struct stat found;
    int seals = fcntl(fd, F_GET_SEALS);
    return seals != -1 && seals != F_SEAL_SEAL && fstat(fd, &found) == 0 && found.st_blocks <= small_blocks;
}

bool
closes_at_once(int fd)
{
    loff_t size;
    if (ioctl(fd, FIOQSIZE, &size) == 0) { /* it is a file or directory: the kernel says so without its file system */
        return is_small_memory_file(fd);
    }
    if (is_of_devices(fd)) {
        return is_memory_device(fd);
    }
    char path[32], name[64]; /* longer ones are of other files */
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t told = readlink(path, name, sizeof name);
#define BEGINS_WITH(text) (told >= (ssize_t)strlen(text) && memcmp(name, text, strlen(text)) == 0)
    return BEGINS_WITH("pipe:[") || BEGINS_WITH("anon_inode:[eventfd") ||
           (BEGINS_WITH("/dev/") && is_memory_device(fd));
}

/* Whether closing what a user, or None, sent may take the loop's time: seqrpc.kernel.closing.is_trusted. */
static bool
is_trusted(PyObject *sender)
{
    int overflow;
    if (sender == NULL || !PyLong_CheckExact(sender)) {
        return false;
    }
    long uid = PyLong_AsLongAndOverflow(sender, &overflow);
    return !overflow && (uid == 0 || uid == (long)geteuid());
}

/* Have a thread close a descriptor. It is in the closer's hands before anything of Python runs. */
static int
hand_over(PyObject *owned)
{
    PyObject *inbox = PyObject_GetAttr(the_closer, str__inbox), *told = NULL;
    PyObject *work = PyTuple_Pack(3, slot(owned, owned__fd), Py_None, slot(owned, owned__sender));
    if (inbox != NULL && work != NULL) {
        told = PyObject_CallMethodOneArg(inbox, str_append, work);
    }
    if (told != NULL) {
        set_slot(owned, owned__fd, minus_one);
        Py_SETREF(told, PyObject_CallMethodNoArgs(the_closer, str_tend));
    }
    Py_XDECREF(inbox);
    Py_XDECREF(work);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

/* Close a descriptor that came, if it is still owned, as OwnedFd.close does. */
static int
close_one(PyObject *owned)
{
    PyObject *number = slot(owned, owned__fd);
    long fd = number == NULL ? -1 : PyLong_AsLong(number);
    if (fd < 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *generation = PyObject_GetAttr(the_forks, str_generation);
    if (generation == NULL) {
        return -1;
    }
    bool is_of_fork = slot(owned, owned__generation) != generation; /* numbers so small are the same objects */
    Py_DECREF(generation);
    if (is_of_fork) {
        PyObject *told = PyObject_CallMethodNoArgs(owned, str_close);
        Py_XDECREF(told);
        return told == NULL ? -1 : 0;
    }
    bool at_once = is_trusted(slot(owned, owned__sender)) && closes_at_once((int)fd);
    if (PySet_Discard(slot(owned, owned__booked), number) < 0) {
        return -1;
    }
    if (!at_once) {
        return hand_over(owned);
    }
    set_slot(owned, owned__fd, minus_one);
    close((int)fd); /* whatever it says, the number is free again */
    return 0;
}

int
close_few(PyObject *fds)
{
    while (PyList_GET_SIZE(fds) > 0) {
        Py_ssize_t last = PyList_GET_SIZE(fds) - 1;
        PyObject *owned = Py_NewRef(PyList_GET_ITEM(fds, last));
        int failed = PyList_SetSlice(fds, last, last + 1, NULL) < 0 || close_one(owned) < 0;
        Py_DECREF(owned);
        if (failed && !PyErr_ExceptionMatches(PyExc_OSError)) {
            return -1;
        }
        PyErr_Clear();
    }
    return 0;
}
