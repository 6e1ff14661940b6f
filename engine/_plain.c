/*
 * Plain files, many in one call: the system calls of a walk and a read that cost too much one by one.
 *
 * Each function does for a run of files what Python does for one, without the interpreter lock, and only where
 * nothing is out of the ordinary. At the first file that is (an error, an extended attribute, a hole, another
 * file than the one that was looked at, a change while it was read) it stops and says how far it came; the
 * caller does that file again in Python, which knows every case and has the words for it. So no rule lives
 * here alone, and nothing here raises for what it finds on a disk.
 *
 * docs/decisions/0015-plain-files-are-handled-in-runs.md says why this is C.
 */

#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/xattr.h>
#endif

#define NS 1000000000
#define BLOCK_BYTES 512 /* the unit of st_blocks, whatever the file system's own */
#define LOOKS_MAX 128 /* names in one call: most directories, and little to do again where all are directories */
#define KINDS 16
#define NO_KIND 0xff

/* Where things stand in an Entry (repo_store/entry.py); the caller asserts that it is so. */
enum field { NAME, KIND, MODE, UID, GID, MTIME, CTIME, INODE, SIZE, CONTENT, EXTRA, FIELDS };

#ifdef __APPLE__
#define st_mtim st_mtimespec
#define st_ctim st_ctimespec
#endif

static int64_t nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * NS + time.tv_nsec;
}

/* Return a new Entry-shaped tuple, or NULL with an exception set. */
static PyObject *make_row(PyObject *name, unsigned kind, const struct stat *status)
{
    PyObject *row = PyTuple_New(FIELDS);
    if (row == NULL)
        return NULL;
    Py_INCREF(name);
    PyTuple_SetItem(row, NAME, name);
    PyTuple_SetItem(row, KIND, PyLong_FromLong((long)kind));
    PyTuple_SetItem(row, MODE, PyLong_FromLong((long)(status->st_mode & 07777)));
    PyTuple_SetItem(row, UID, PyLong_FromUnsignedLong(status->st_uid));
    PyTuple_SetItem(row, GID, PyLong_FromUnsignedLong(status->st_gid));
    PyTuple_SetItem(row, MTIME, PyLong_FromLongLong(nanoseconds(status->st_mtim)));
    PyTuple_SetItem(row, CTIME, PyLong_FromLongLong(nanoseconds(status->st_ctim)));
    PyTuple_SetItem(row, INODE, PyLong_FromUnsignedLongLong(status->st_ino));
    PyTuple_SetItem(row, SIZE, PyLong_FromLongLong(S_ISREG(status->st_mode) ? status->st_size : 0));
    Py_INCREF(Py_None);
    PyTuple_SetItem(row, CONTENT, Py_None);
    Py_INCREF(Py_None);
    PyTuple_SetItem(row, EXTRA, Py_None);
    if (PyErr_Occurred()) {
        Py_DECREF(row);
        return NULL;
    }
    return row;
}

/*
 * Lstat names[0], names[1], … of the open directory into ${found}, without the interpreter lock. Return how many
 * were plain: something with a kind, and not one of several links. A directory is the last one looked at.
 * Set ${strange} if the one after them was looked at and was not plain.
 */
static Py_ssize_t look_at(int directory, char **names, Py_ssize_t count, const uint8_t *kinds, struct stat *found,
                          int *strange)
{
    *strange = 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (fstatat(directory, names[i], &found[i], AT_SYMLINK_NOFOLLOW) != 0)
            return i;
        int is_directory = S_ISDIR(found[i].st_mode);
        if (kinds[found[i].st_mode >> 12 & (KINDS - 1)] == NO_KIND || (found[i].st_nlink > 1 && !is_directory))
            return i;
        if (is_directory) {
            count = i + 1;
            break;
        }
    }
    *strange = 0;
    return count;
}

static PyObject *rows_of(PyObject *names, Py_ssize_t start, Py_ssize_t count, const uint8_t *kinds,
                         const struct stat *found, int strange)
{
    PyObject *rows = PyList_New(count);
    for (Py_ssize_t i = 0; rows != NULL && i < count; i++) {
        unsigned kind = kinds[found[i].st_mode >> 12 & (KINDS - 1)];
        PyObject *row = make_row(PyTuple_GetItem(names, start + i), kind, &found[i]);
        if (row == NULL || PyList_SetItem(rows, i, row) != 0)
            Py_CLEAR(rows);
    }
    if (rows != NULL && strange && PyList_Append(rows, Py_None) != 0)
        Py_CLEAR(rows);
    return rows;
}

static PyObject *look(PyObject *module, PyObject *args)
{
    int directory, strange = 0;
    PyObject *names, *rows = NULL;
    Py_ssize_t start, kinds_bytes;
    const uint8_t *kinds;
    (void)module;
    if (!PyArg_ParseTuple(args, "iO!ny#", &directory, &PyTuple_Type, &names, &start, &kinds, &kinds_bytes))
        return NULL;
    Py_ssize_t count = PyTuple_Size(names) - start;
    if (start < 0 || count < 0 || kinds_bytes != KINDS) {
        PyErr_SetString(PyExc_ValueError, "the start lies outside the names, or there are not 16 kinds");
        return NULL;
    }
    if (count > LOOKS_MAX)
        count = LOOKS_MAX;
    char **paths = malloc((size_t)(count + 1) * sizeof *paths);
    struct stat *found = malloc((size_t)(count + 1) * sizeof *found);
    if (paths == NULL || found == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count && !PyErr_Occurred(); i++)
        PyBytes_AsStringAndSize(PyTuple_GetItem(names, start + i), &paths[i], NULL); /* refuses a NUL within */
    if (!PyErr_Occurred()) {
        Py_BEGIN_ALLOW_THREADS
        count = look_at(directory, paths, count, kinds, found, &strange);
        Py_END_ALLOW_THREADS
        rows = rows_of(names, start, count, kinds, found, strange);
    }
    free(paths);
    free(found);
    return rows;
}

/* What the walk knows of a file that is to be read. */
struct wanted {
    char *name;
    uint64_t inode;
    int64_t mtime, ctime, size;
    int own;
};

static int is_as_wanted(int file, const struct wanted *wanted)
{
    struct stat status;
    return fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_ino == wanted->inode &&
           status.st_size == wanted->size && nanoseconds(status.st_mtim) == wanted->mtime &&
           nanoseconds(status.st_ctim) == wanted->ctime &&
           (int64_t)status.st_blocks * BLOCK_BYTES >= status.st_size;
}

static int has_xattrs(int file)
{
#ifdef __linux__
    ssize_t bytes = flistxattr(file, NULL, 0);
    return bytes > 0 || (bytes < 0 && errno != ENOTSUP && errno != ENOSYS);
#else
    (void)file;
    return 1;
#endif
}

static int read_whole(int file, uint8_t *target, int64_t size)
{
    for (int64_t at = 0; at < size;) {
        ssize_t count = pread(file, target + at, (size_t)(size - at), at);
        if (count <= 0)
            return 0;
        at += count;
    }
    return 1;
}

/* Return 1 if the file was what is wanted before and after it was read, and has no extended attributes. */
static int read_plain(int directory, const struct wanted *wanted, int xattrs, uint8_t *target)
{
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
#ifdef O_NOATIME
    if (wanted->own)
        flags |= O_NOATIME;
#endif
    int file = openat(directory, wanted->name, flags);
    if (file < 0)
        return 0;
    int good = is_as_wanted(file, wanted) && !(xattrs && has_xattrs(file)) &&
               read_whole(file, target, wanted->size) && is_as_wanted(file, wanted);
    close(file);
    return good;
}

/* Fill ${wanted} from an Entry. Returns -1 with an exception set if it is none. */
static int want(PyObject *entry, unsigned long euid, struct wanted *wanted)
{
    if (!PyTuple_Check(entry) || PyTuple_Size(entry) != FIELDS) {
        PyErr_SetString(PyExc_TypeError, "an entry is a tuple of 11 fields");
        return -1;
    }
    if (PyBytes_AsStringAndSize(PyTuple_GetItem(entry, NAME), &wanted->name, NULL) != 0) /* refuses a NUL within */
        return -1;
    wanted->inode = PyLong_AsUnsignedLongLong(PyTuple_GetItem(entry, INODE));
    wanted->mtime = PyLong_AsLongLong(PyTuple_GetItem(entry, MTIME));
    wanted->ctime = PyLong_AsLongLong(PyTuple_GetItem(entry, CTIME));
    wanted->size = PyLong_AsLongLong(PyTuple_GetItem(entry, SIZE));
    wanted->own = euid == 0 || PyLong_AsUnsignedLong(PyTuple_GetItem(entry, UID)) == euid;
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *read_files(PyObject *module, PyObject *args)
{
    int directory, xattrs;
    unsigned long euid;
    PyObject *entries;
    Py_buffer target;
    Py_ssize_t done = 0;
    int64_t at = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "iO!w*kp", &directory, &PyTuple_Type, &entries, &target, &euid, &xattrs))
        return NULL;
    Py_ssize_t count = PyTuple_Size(entries); /* tuples of tuples: nobody changes them while the lock is away */
    struct wanted *wanted = malloc((size_t)(count + 1) * sizeof *wanted);
    if (wanted == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count && !PyErr_Occurred(); i++)
        want(PyTuple_GetItem(entries, i), euid, &wanted[i]);
    if (!PyErr_Occurred()) {
        Py_BEGIN_ALLOW_THREADS
        for (; done < count; at += wanted[done++].size)
            if (wanted[done].size < 0 || wanted[done].size > target.len - at ||
                !read_plain(directory, &wanted[done], xattrs, (uint8_t *)target.buf + at))
                break;
        Py_END_ALLOW_THREADS
    }
    free(wanted);
    PyBuffer_Release(&target);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(done);
}

static PyMethodDef methods[] = {
    {"look", look, METH_VARARGS,
     "look(directory_fd, names, start, kinds) -> rows: lstat names from start on; the last row is that of a\n"
     "directory, or None for a name that is not plain, or the last that fits into one call."},
    {"read_files", read_files, METH_VARARGS,
     "read_files(directory_fd, entries, target, euid, xattrs) -> count: read whole files one behind the other\n"
     "into target, until one is not plain or not as its entry says."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "engine._plain", "Plain files, many in one call.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__plain(void);
PyMODINIT_FUNC PyInit__plain(void)
{
    return PyModuleDef_Init(&definition);
}
