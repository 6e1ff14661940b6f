/*
 * Restored files, many in one call: created, written and given their metadata without the interpreter lock.
 *
 * As engine/_plain.c this does the ordinary case only. At the first file that is not (something has its name, a
 * block of zeros that is to become a hole, an owner that cannot be set, a value that no file system takes) it stops,
 * leaves nothing of that file behind, and says how far it came; the caller does that file again in Python, which
 * knows every case and has the words for it. Nothing here raises for what it finds on a disk or in a manifest.
 *
 * Law: everything is created exclusively in the directory that the descriptor names, under a name without a slash:
 * no link is followed, nothing is overwritten. docs/decisions/0019-a-restore-reads-pack-by-pack.md says why this is C.
 */

#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define NS 1000000000
#define HOLE_BYTES 4096 /* as in engine/target_file.py */
#define KEEP -1
#define FILES_MAX 512 /* files in one call: what a stop request has to wait for */

/* Where things stand in a row; engine/target.py makes them. */
enum field { NAME, CONTENT, UID, GID, MODE, MTIME, FIELDS };

/* What a restored file is to be. An owner or group of -1 stays as it is. */
struct made {
    char *name;
    Py_buffer content;
    int64_t mtime;
    long long uid, gid;
    long mode;
};

static int is_name(const char *name)
{
    return name[0] != 0 && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static int is_owner(long long id)
{
    return id >= KEEP && id < UINT32_MAX;
}

/* Return 1 if the content has a block of zeros that is to become a hole. */
static int has_hole(const uint8_t *content, int64_t size)
{
    for (int64_t at = 0; at + HOLE_BYTES <= size; at += HOLE_BYTES)
        if (content[at] == 0 && memcmp(content + at, content + at + 1, HOLE_BYTES - 1) == 0)
            return 1;
    return 0;
}

static int write_whole(int file, const uint8_t *content, int64_t size)
{
    for (int64_t at = 0; at < size;) {
        ssize_t count = pwrite(file, content + at, (size_t)(size - at), at);
        if (count <= 0)
            return 0;
        at += count;
    }
    return 1;
}

/* Create the file with its content and metadata. Return 0, and leave nothing behind, if anything is refused. */
static int create(int directory, const struct made *made)
{
    struct timespec times[2];
    if (!is_name(made->name) || !is_owner(made->uid) || !is_owner(made->gid) || made->mode < 0 || made->mode > 07777 ||
        has_hole(made->content.buf, made->content.len))
        return 0;
    int file = openat(directory, made->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        return 0;
    times[0].tv_sec = (time_t)(made->mtime / NS - (made->mtime % NS < 0));
    times[0].tv_nsec = (long)(made->mtime - (int64_t)times[0].tv_sec * NS);
    times[1] = times[0];
    /* The owner before the mode: chown takes the set-id bits away. The times last: all else changes them. */
    int good = write_whole(file, made->content.buf, made->content.len) &&
               ((made->uid == KEEP && made->gid == KEEP) ||
                fchown(file, (uid_t)made->uid, (gid_t)made->gid) == 0) &&
               fchmod(file, (mode_t)made->mode) == 0 && futimens(file, times) == 0;
    if (close(file) != 0)
        good = 0;
    if (!good)
        unlinkat(directory, made->name, 0);
    return good;
}

/* Fill ${made} from a row. Returns 0, without an exception, for a row that Python must look at. */
static int parse(PyObject *row, struct made *made)
{
    if (!PyTuple_Check(row) || PyTuple_Size(row) != FIELDS ||
        PyBytes_AsStringAndSize(PyTuple_GetItem(row, NAME), &made->name, NULL) != 0) { /* refuses a NUL within */
        PyErr_Clear();
        return 0;
    }
    made->uid = PyLong_AsLongLong(PyTuple_GetItem(row, UID));
    made->gid = PyLong_AsLongLong(PyTuple_GetItem(row, GID));
    made->mode = PyLong_AsLong(PyTuple_GetItem(row, MODE));
    made->mtime = PyLong_AsLongLong(PyTuple_GetItem(row, MTIME));
    if (PyErr_Occurred() || PyObject_GetBuffer(PyTuple_GetItem(row, CONTENT), &made->content, PyBUF_SIMPLE) != 0) {
        PyErr_Clear();
        return 0;
    }
    return 1;
}

static PyObject *create_files(PyObject *module, PyObject *args)
{
    int directory;
    PyObject *rows;
    Py_ssize_t start, parsed = 0, done = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "iO!n", &directory, &PyTuple_Type, &rows, &start))
        return NULL;
    Py_ssize_t count = PyTuple_Size(rows) - start; /* tuples of tuples: nobody changes them while the lock is away */
    if (start < 0 || count < 0) {
        PyErr_SetString(PyExc_ValueError, "the start lies outside the rows");
        return NULL;
    }
    if (count > FILES_MAX)
        count = FILES_MAX;
    struct made *made = calloc((size_t)(count + 1), sizeof *made);
    if (made == NULL)
        return PyErr_NoMemory();
    while (parsed < count && parse(PyTuple_GetItem(rows, start + parsed), &made[parsed]))
        parsed++;
    Py_BEGIN_ALLOW_THREADS
    while (done < parsed && create(directory, &made[done]))
        done++;
    Py_END_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < parsed; i++)
        PyBuffer_Release(&made[i].content);
    free(made);
    return PyLong_FromSsize_t(done);
}

static PyMethodDef methods[] = {
    {"create_files", create_files, METH_VARARGS,
     "create_files(directory_fd, rows, start) -> count: create files whole from rows[start] on, each\n"
     "(name, content, uid, gid, mode, mtime_ns), until one is not ordinary; of that one nothing is left behind."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "engine._restoring", "Restored files, many in one call.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__restoring(void);
PyMODINIT_FUNC PyInit__restoring(void)
{
    return PyModuleDef_Init(&definition);
}
