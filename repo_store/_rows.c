/*
 * Rows of fixed width in flat buffers: the loops of the index that cost too much as Python.
 *
 * A row starts with its key; rows and keys compare as byte strings (memcmp). The module knows nothing of
 * sections, tables or hashing, allocates no Python object for a row, and changes only buffers that the
 * caller hands it to be changed. tests/support/rows_reference.py says the same in plain Python, and the
 * tests hold the two together.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "row_filter.h"

#define DROP UINT32_MAX

static void store32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)(value >> 16);
    at[3] = (uint8_t)(value >> 24);
}

/* Check that ${buffer} is a whole number of rows; set ValueError and return -1 if not. */
static Py_ssize_t row_count(const Py_buffer *buffer, Py_ssize_t row_bytes)
{
    if (row_bytes <= 0 || buffer->len % row_bytes != 0) {
        PyErr_SetString(PyExc_ValueError, "not a whole number of rows");
        return -1;
    }
    return buffer->len / row_bytes;
}

struct handle {
    uint64_t prefix;
    const uint8_t *row;
    size_t row_bytes;
};

static int compare_handles(const void *left, const void *right)
{
    const struct handle *a = left, *b = right;
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix ? -1 : 1;
    return memcmp(a->row + 8, b->row + 8, a->row_bytes - 8);
}

/* Sort ${count} rows in place. Returns -1 if there is no memory for a copy. */
static int sort_in_place(uint8_t *rows, size_t count, size_t row_bytes)
{
    struct handle *handles = malloc(count * sizeof *handles);
    uint8_t *copy = malloc(count * row_bytes);
    int result = -1;
    if (handles != NULL && copy != NULL) {
        memcpy(copy, rows, count * row_bytes);
        for (size_t i = 0; i < count; i++) {
            const uint8_t *row = copy + i * row_bytes;
            handles[i] = (struct handle){prefix64(row), row, row_bytes};
        }
        qsort(handles, count, sizeof *handles, compare_handles);
        for (size_t i = 0; i < count; i++)
            memcpy(rows + i * row_bytes, handles[i].row, row_bytes);
        result = 0;
    }
    free(handles);
    free(copy);
    return result;
}

static PyObject *sort_rows(PyObject *module, PyObject *args)
{
    Py_buffer rows;
    Py_ssize_t row_bytes;
    (void)module;
    if (!PyArg_ParseTuple(args, "w*n", &rows, &row_bytes))
        return NULL;
    Py_ssize_t count = row_count(&rows, row_bytes);
    int result = 0;
    if (count >= 0 && row_bytes < 8) {
        PyErr_SetString(PyExc_ValueError, "a row has at least 8 bytes");
        count = -1;
    }
    if (count > 1) {
        Py_BEGIN_ALLOW_THREADS
        result = sort_in_place(rows.buf, (size_t)count, (size_t)row_bytes);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&rows);
    if (count < 0)
        return NULL;
    if (result < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *lower_bound(PyObject *module, PyObject *args)
{
    Py_buffer rows, key;
    Py_ssize_t row_bytes;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*ny*", &rows, &row_bytes, &key))
        return NULL;
    Py_ssize_t count = row_count(&rows, row_bytes);
    Py_ssize_t low = 0, high = count;
    if (count >= 0 && key.len > row_bytes) {
        PyErr_SetString(PyExc_ValueError, "the key is longer than a row");
        count = -1;
    }
    const uint8_t *base = rows.buf;
    while (count >= 0 && low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (memcmp(base + middle * row_bytes, key.buf, (size_t)key.len) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    PyBuffer_Release(&rows);
    PyBuffer_Release(&key);
    return count < 0 ? NULL : PyLong_FromSsize_t(low);
}

static PyObject *check_rows(PyObject *module, PyObject *args)
{
    Py_buffer rows;
    Py_ssize_t row_bytes, key_bytes, index_at, bad = -1;
    unsigned int index_limit;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*nnnI", &rows, &row_bytes, &key_bytes, &index_at, &index_limit))
        return NULL;
    Py_ssize_t count = row_count(&rows, row_bytes);
    if (count >= 0 && (key_bytes < 0 || key_bytes > row_bytes || index_at < 0 || index_at > row_bytes - 4)) {
        PyErr_SetString(PyExc_ValueError, "the key or the index lies outside the row");
        count = -1;
    }
    const uint8_t *base = rows.buf;
    for (Py_ssize_t i = 0; i < count && bad < 0; i++) {
        const uint8_t *row = base + i * row_bytes;
        if (load32(row + index_at) >= index_limit)
            bad = i;
        else if (i > 0 && memcmp(row - row_bytes, row, (size_t)key_bytes) > 0)
            bad = i;
    }
    PyBuffer_Release(&rows);
    return count < 0 ? NULL : PyLong_FromSsize_t(bad);
}

static PyObject *remap_rows(PyObject *module, PyObject *args)
{
    Py_buffer rows, map;
    Py_ssize_t row_bytes, index_at, kept = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "w*nny*", &rows, &row_bytes, &index_at, &map))
        return NULL;
    Py_ssize_t count = row_count(&rows, row_bytes);
    if (count >= 0 && (index_at < 0 || index_at > row_bytes - 4)) {
        PyErr_SetString(PyExc_ValueError, "the index lies outside the row");
        count = -1;
    }
    uint8_t *base = rows.buf;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint8_t *row = base + i * row_bytes;
        uint32_t index = load32(row + index_at);
        if ((Py_ssize_t)index >= map.len / 4) {
            PyErr_SetString(PyExc_ValueError, "an index lies outside the map");
            count = -1;
            break;
        }
        uint32_t mapped = load32((const uint8_t *)map.buf + 4 * (size_t)index);
        if (mapped == DROP)
            continue;
        uint8_t *target = base + kept * row_bytes;
        if (target != row)
            memmove(target, row, (size_t)row_bytes);
        store32(target + index_at, mapped);
        kept++;
    }
    PyBuffer_Release(&rows);
    PyBuffer_Release(&map);
    return count < 0 ? NULL : PyLong_FromSsize_t(kept);
}

static PyObject *filter_add(PyObject *module, PyObject *args)
{
    Py_buffer filter, rows;
    Py_ssize_t row_bytes;
    (void)module;
    if (!PyArg_ParseTuple(args, "w*y*n", &filter, &rows, &row_bytes))
        return NULL;
    Py_ssize_t count = row_count(&rows, row_bytes);
    size_t blocks = (size_t)filter.len / FILTER_BLOCK_BYTES;
    if (count >= 0 && (row_bytes < KEY_BYTES_MIN || blocks == 0 || blocks > UINT32_MAX)) {
        PyErr_SetString(PyExc_ValueError, "the rows are too short or the filter has no block");
        count = -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        uint64_t hash = key_hash((const uint8_t *)rows.buf + i * row_bytes);
        filter_set((uint8_t *)filter.buf + block_of(hash, blocks) * FILTER_BLOCK_BYTES, filter_bits(hash));
    }
    PyBuffer_Release(&filter);
    PyBuffer_Release(&rows);
    if (count < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Called as probe(filters, key), with vectorcall arguments: the writer asks it once for every chunk. */
static PyObject *probe(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !PyTuple_Check(args[0]) || !PyBytes_Check(args[1]) ||
        PyBytes_Size(args[1]) < KEY_BYTES_MIN) {
        PyErr_SetString(PyExc_TypeError, "probe takes a tuple of filters and a key of at least 20 bytes");
        return NULL;
    }
    uint64_t hash = key_hash((const uint8_t *)PyBytes_AsString(args[1]));
    uint64_t bits = filter_bits(hash), found = 0;
    Py_ssize_t filters = PyTuple_Size(args[0]);
    if (filters > 62) {
        PyErr_SetString(PyExc_ValueError, "at most 62 filters");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < filters; i++) {
        PyObject *filter = PyTuple_GetItem(args[0], i);
        if (!PyBytes_Check(filter)) {
            PyErr_SetString(PyExc_TypeError, "a filter is a bytes object");
            return NULL;
        }
        if (filter_may_hold((const uint8_t *)PyBytes_AsString(filter), (size_t)PyBytes_Size(filter), hash, bits))
            found |= (uint64_t)1 << i;
    }
    return PyLong_FromUnsignedLongLong(found);
}

static PyMethodDef methods[] = {
    {"sort_rows", sort_rows, METH_VARARGS, "sort_rows(rows, row_bytes): sort rows in place by all their bytes."},
    {"lower_bound", lower_bound, METH_VARARGS,
     "lower_bound(rows, row_bytes, key) -> number of rows whose first len(key) bytes are below key."},
    {"check_rows", check_rows, METH_VARARGS,
     "check_rows(rows, row_bytes, key_bytes, index_at, index_limit) -> number of the first row that is out of\n"
     "order or whose u32 at index_at is not below index_limit, or -1."},
    {"remap_rows", remap_rows, METH_VARARGS,
     "remap_rows(rows, row_bytes, index_at, map) -> rows kept: replace each u32 at index_at through map (u32\n"
     "each), closing up over rows that map to 0xffffffff."},
    {"filter_add", filter_add, METH_VARARGS, "filter_add(filter, rows, row_bytes): add the key of every row."},
    {"probe", (PyCFunction)(void (*)(void))probe, METH_FASTCALL,
     "probe(filters, key) -> bits: bit i is set if filters[i] may hold key."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "repo_store._rows", "Rows of fixed width in flat buffers.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__rows(void);
PyMODINIT_FUNC PyInit__rows(void)
{
    return PyModuleDef_Init(&definition);
}
