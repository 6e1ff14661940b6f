/*
 * Ordinary entries, many in one call: into their encoded form, and beside what they were before.
 *
 * An entry is ordinary if it has one chunk or none, nothing in extra, and numbers and a name such as any file has. At the
 * first one that is not, `pack_rows` stops and says nothing about it: the caller gives that entry to msgpack and
 * to the checks in Python, which know every case and have the words for it. What is written here is what msgpack
 * writes (docs/format.md, section 9: shortest forms, byte strings as bin), and tests hold the two together.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* Where things stand in an Entry (repo_store/entry.py); tests hold it so. */
enum field { NAME, KIND, MODE, UID, GID, MTIME, CTIME, INODE, SIZE, CONTENT, EXTRA, FIELDS };

#define ID_BYTES 32
#define NAME_BYTES_MAX 4096
#define ROW_BYTES_MAX (1 + 3 + NAME_BYTES_MAX + 8 * 9 + 2 + ID_BYTES + 1)
#define ARRAY_OF_11 0x9b
#define NIL 0xc0

static uint8_t *put_big_endian(uint8_t *at, uint64_t value, int bytes)
{
    for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8)
        *at++ = (uint8_t)(value >> shift);
    return at;
}

static uint8_t *put_unsigned(uint8_t *at, uint64_t value)
{
    if (value < 0x80) {
        *at++ = (uint8_t)value;
        return at;
    }
    int power = value <= UINT8_MAX ? 0 : value <= UINT16_MAX ? 1 : value <= UINT32_MAX ? 2 : 3;
    *at++ = (uint8_t)(0xcc + power);
    return put_big_endian(at, value, 1 << power);
}

static uint8_t *put_signed(uint8_t *at, int64_t value)
{
    if (value >= 0)
        return put_unsigned(at, (uint64_t)value);
    if (value >= -32) {
        *at++ = (uint8_t)value;
        return at;
    }
    int power = value >= INT8_MIN ? 0 : value >= INT16_MIN ? 1 : value >= INT32_MIN ? 2 : 3;
    *at++ = (uint8_t)(0xd0 + power);
    return put_big_endian(at, (uint64_t)value, 1 << power);
}

/* For byte strings of less than 64 KiB. */
static uint8_t *put_bytes(uint8_t *at, const char *data, size_t length)
{
    int power = length <= UINT8_MAX ? 0 : 1;
    *at++ = (uint8_t)(0xc4 + power);
    at = put_big_endian(at, length, 1 << power);
    memcpy(at, data, length);
    return at + length;
}

/* A byte string that its owner keeps alive. */
struct name {
    const char *data;
    Py_ssize_t length;
};

/* Return 1 if ${object} is bytes, and fill ${name} from it. */
static int as_bytes(PyObject *object, struct name *name)
{
    if (!PyBytes_Check(object))
        return 0;
    name->data = PyBytes_AsString(object);
    name->length = PyBytes_Size(object);
    return 1;
}

static int is_good_name(const struct name *name, Py_ssize_t length_max)
{
    const char *data = name->data;
    if (name->length < 1 || name->length > length_max || memchr(data, '/', (size_t)name->length) != NULL ||
        memchr(data, 0, (size_t)name->length) != NULL)
        return 0;
    return !(data[0] == '.' && (name->length == 1 || (name->length == 2 && data[1] == '.')));
}

static int comes_after(const struct name *name, const struct name *before)
{
    Py_ssize_t shorter = name->length < before->length ? name->length : before->length;
    int order = memcmp(name->data, before->data, (size_t)shorter);
    return order > 0 || (order == 0 && name->length > before->length);
}

/*
 * Write the entry with this content to ${row}. Return its length, or 0 if it is not ordinary. Leaves no exception.
 */
static size_t pack_row(PyObject *entry, PyObject *content, const struct name *name, uint8_t *row)
{
    static const enum field numbers[] = {KIND, MODE, UID, GID, MTIME, CTIME, INODE, SIZE};
    struct name id = {NULL, 0};
    if (PyTuple_GetItem(entry, EXTRA) != Py_None)
        return 0;
    if (content != Py_None && (!as_bytes(content, &id) || (id.length != ID_BYTES && id.length != 0)))
        return 0;
    uint8_t *at = row;
    *at++ = ARRAY_OF_11;
    at = put_bytes(at, name->data, (size_t)name->length);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        PyObject *number = PyTuple_GetItem(entry, numbers[i]);
        if (!PyLong_Check(number))
            return 0;
        if (numbers[i] == MTIME || numbers[i] == CTIME)
            at = put_signed(at, PyLong_AsLongLong(number));
        else
            at = put_unsigned(at, PyLong_AsUnsignedLongLong(number));
    }
    if (PyErr_Occurred()) { /* a number beyond 64 bits, or below zero where none may be */
        PyErr_Clear();
        return 0;
    }
    if (id.length == ID_BYTES)
        at = put_bytes(at, id.data, ID_BYTES);
    else
        *at++ = NIL;
    *at++ = NIL;
    return (size_t)(at - row);
}

static int is_entry(PyObject *object)
{
    return object != NULL && PyTuple_Check(object) && PyTuple_Size(object) == FIELDS;
}

/* Append the rows of ordinary entries from ${start} on. Returns -1 with an exception set. */
static int append_rows(PyObject *rows, PyObject *entries, PyObject *contents, Py_ssize_t start, struct name before,
                       Py_ssize_t name_bytes_max)
{
    uint8_t row[ROW_BYTES_MAX];
    for (Py_ssize_t i = start; i < PyList_Size(entries); i++) {
        PyObject *entry = PyList_GetItem(entries, i);
        struct name name;
        if (!is_entry(entry) || !as_bytes(PyTuple_GetItem(entry, NAME), &name) ||
            !is_good_name(&name, name_bytes_max) || !comes_after(&name, &before))
            return 0;
        PyObject *content = contents == Py_None ? PyTuple_GetItem(entry, CONTENT) : PyList_GetItem(contents, i);
        size_t length = pack_row(entry, content, &name, row);
        if (length == 0)
            return 0;
        PyObject *packed = PyBytes_FromStringAndSize((const char *)row, (Py_ssize_t)length);
        int result = packed == NULL ? -1 : PyList_Append(rows, packed);
        Py_XDECREF(packed);
        if (result != 0)
            return -1;
        before = name;
    }
    return 0;
}

static PyObject *pack_rows(PyObject *module, PyObject *args)
{
    PyObject *entries, *contents;
    Py_ssize_t start, name_bytes_max;
    struct name before;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!Ony#n", &PyList_Type, &entries, &contents, &start, &before.data, &before.length,
                          &name_bytes_max))
        return NULL;
    if (start < 0 || name_bytes_max > NAME_BYTES_MAX ||
        (contents != Py_None && (!PyList_Check(contents) || PyList_Size(contents) != PyList_Size(entries)))) {
        PyErr_SetString(PyExc_ValueError, "there is not one content to each entry, or a bound is wrong");
        return NULL;
    }
    PyObject *rows = PyList_New(0);
    if (rows != NULL && append_rows(rows, entries, contents, start, before, name_bytes_max) != 0)
        Py_CLEAR(rows);
    return rows;
}

/* Return 1 if two entries are surely the same file, unchanged; 0 if not; -1 with an exception set. */
static int is_unchanged(PyObject *previous, PyObject *current, long long trusted_before)
{
    if (!is_entry(previous) || !is_entry(current) || PyTuple_GetItem(previous, EXTRA) != Py_None ||
        PyTuple_GetItem(current, EXTRA) != Py_None)
        return 0;
    for (int field = NAME; field <= SIZE; field++) {
        int equal =
            PyObject_RichCompareBool(PyTuple_GetItem(previous, field), PyTuple_GetItem(current, field), Py_EQ);
        if (equal != 1)
            return equal;
    }
    long long mtime = PyLong_AsLongLong(PyTuple_GetItem(current, MTIME));
    long long ctime = PyLong_AsLongLong(PyTuple_GetItem(current, CTIME));
    if (PyErr_Occurred()) {
        PyErr_Clear(); /* a time beyond 64 bits: of the future, which never counts as past */
        return 0;
    }
    return mtime < trusted_before && ctime < trusted_before;
}

static PyObject *unchanged(PyObject *module, PyObject *args)
{
    PyObject *previous, *current;
    long long trusted_before;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!L", &PyList_Type, &previous, &PyList_Type, &current, &trusted_before))
        return NULL;
    Py_ssize_t count = PyList_Size(current);
    if (PyList_Size(previous) != count) {
        PyErr_SetString(PyExc_ValueError, "the lists have different lengths");
        return NULL;
    }
    PyObject *kept = PyList_New(count);
    for (Py_ssize_t i = 0; kept != NULL && i < count; i++) {
        PyObject *before = PyList_GetItem(previous, i);
        int same = is_unchanged(before, PyList_GetItem(current, i), trusted_before);
        PyObject *item = same == 1 ? before : Py_None;
        Py_INCREF(item);
        if (PyList_SetItem(kept, i, item) != 0 || same < 0)
            Py_CLEAR(kept);
    }
    return kept;
}

static PyMethodDef methods[] = {
    {"pack_rows", pack_rows, METH_VARARGS,
     "pack_rows(entries, contents, start, last_name, name_bytes_max) -> rows: the encoded entries from start on, up\n"
     "to the first that is not ordinary or not in order. contents, if not None, stand for those of the entries."},
    {"unchanged", unchanged, METH_VARARGS,
     "unchanged(previous, current, trusted_before_ns) -> for each pair the previous entry where it has no extra, all that\n"
     "lstat says is the same and both times are to be trusted, else None."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "repo_store._entries", "Ordinary entries, many in one call.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__entries(void);
PyMODINIT_FUNC PyInit__entries(void)
{
    return PyModuleDef_Init(&definition);
}
