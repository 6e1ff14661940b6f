/*
 * Many rows at once: the loops of a writer that asks the index for hundreds of chunks, or tells it of thousands.
 *
 * Each function does for many keys what _rows.c and row_batch.py do for one, and decides nothing: which answer counts
 * is judged in Python (row_view.py). tests/support/rows_reference.py says the same in plain Python.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "row_filter.h"

#define CHUNK_ROW_BYTES 44
#define ID_BYTES 32
#define FRAME_BYTES 6 /* number of the origin (4), ordinal (2) */
#define SEVERAL 255

/* The number of rows whose first ${key_bytes} are below ${key}. */
static size_t rows_below(const uint8_t *rows, size_t count, size_t row_bytes, const uint8_t *key, size_t key_bytes)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(rows + middle * row_bytes, key, key_bytes) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Return 0 for no filter, 1 and up for one of them, SEVERAL where more than one may hold the key. */
static uint8_t which_filter(PyObject *filters, const uint8_t *key)
{
    uint64_t hash = key_hash(key), bits = filter_bits(hash);
    uint8_t found = 0;
    for (Py_ssize_t i = 0; i < PyTuple_Size(filters); i++) {
        PyObject *filter = PyTuple_GetItem(filters, i);
        if (!filter_may_hold((const uint8_t *)PyBytes_AsString(filter), (size_t)PyBytes_Size(filter), hash, bits))
            continue;
        if (found != 0 || i + 1 >= SEVERAL)
            return SEVERAL;
        found = (uint8_t)(i + 1);
    }
    return found;
}

static PyObject *probe_ids(PyObject *module, PyObject *args)
{
    PyObject *filters;
    const uint8_t *keys;
    Py_ssize_t bytes;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!y#", &PyTuple_Type, &filters, &keys, &bytes))
        return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_Size(filters); i++) {
        if (!PyBytes_Check(PyTuple_GetItem(filters, i))) {
            PyErr_SetString(PyExc_TypeError, "a filter is a bytes object");
            return NULL;
        }
    }
    if (bytes % ID_BYTES != 0) {
        PyErr_SetString(PyExc_ValueError, "not a whole number of ids");
        return NULL;
    }
    PyObject *hits = PyBytes_FromStringAndSize(NULL, bytes / ID_BYTES);
    if (hits == NULL)
        return NULL;
    uint8_t *target = (uint8_t *)PyBytes_AsString(hits);
    for (Py_ssize_t i = 0; i < bytes / ID_BYTES; i++)
        target[i] = which_filter(filters, keys + i * ID_BYTES);
    return hits;
}

static PyObject *blocks_of(PyObject *module, PyObject *args)
{
    const uint8_t *fences, *ids;
    Py_ssize_t fences_bytes, fence_bytes, ids_bytes;
    (void)module;
    if (!PyArg_ParseTuple(args, "y#ny#", &fences, &fences_bytes, &fence_bytes, &ids, &ids_bytes))
        return NULL;
    if (fence_bytes < 1 || fence_bytes > ID_BYTES || fences_bytes % fence_bytes != 0 || ids_bytes % ID_BYTES != 0) {
        PyErr_SetString(PyExc_ValueError, "not a whole number of fences or ids");
        return NULL;
    }
    PyObject *numbers = PyList_New(ids_bytes / ID_BYTES);
    for (Py_ssize_t i = 0; numbers != NULL && i < ids_bytes / ID_BYTES; i++) {
        size_t below = rows_below(fences, (size_t)(fences_bytes / fence_bytes), (size_t)fence_bytes,
                                  ids + i * ID_BYTES, (size_t)fence_bytes);
        if (PyList_SetItem(numbers, i, PyLong_FromSize_t(below > 0 ? below - 1 : 0)) != 0)
            Py_CLEAR(numbers);
    }
    return numbers;
}

/* Return the frame of the first row of ${id} in ${block}, or None. */
static PyObject *frame_in(PyObject *block, const uint8_t *id)
{
    if (!PyBytes_Check(block) || PyBytes_Size(block) % CHUNK_ROW_BYTES != 0) {
        PyErr_SetString(PyExc_ValueError, "a block is bytes, a whole number of rows");
        return NULL;
    }
    const uint8_t *rows = (const uint8_t *)PyBytes_AsString(block);
    size_t count = (size_t)PyBytes_Size(block) / CHUNK_ROW_BYTES;
    size_t at = rows_below(rows, count, CHUNK_ROW_BYTES, id, ID_BYTES);
    const uint8_t *row = rows + at * CHUNK_ROW_BYTES;
    if (at == count || memcmp(row, id, ID_BYTES) != 0)
        Py_RETURN_NONE;
    uint8_t frame[FRAME_BYTES];
    memcpy(frame, row + ID_BYTES, 4);
    memcpy(frame + 4, row + CHUNK_ROW_BYTES - 2, 2);
    return PyBytes_FromStringAndSize((const char *)frame, sizeof frame);
}

static PyObject *frames_of(PyObject *module, PyObject *args)
{
    PyObject *blocks;
    const uint8_t *ids;
    Py_ssize_t bytes;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!y#", &PyList_Type, &blocks, &ids, &bytes))
        return NULL;
    if (bytes != PyList_Size(blocks) * ID_BYTES) {
        PyErr_SetString(PyExc_ValueError, "there is not one block to each id");
        return NULL;
    }
    PyObject *frames = PyList_New(bytes / ID_BYTES);
    for (Py_ssize_t i = 0; frames != NULL && i < bytes / ID_BYTES; i++) {
        PyObject *frame = frame_in(PyList_GetItem(blocks, i), ids + i * ID_BYTES);
        if (frame == NULL || PyList_SetItem(frames, i, frame) != 0)
            Py_CLEAR(frames);
    }
    return frames;
}

static void store_little_endian(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static PyObject *chunk_rows(PyObject *module, PyObject *args)
{
    const uint8_t *ids;
    Py_ssize_t ids_bytes;
    Py_buffer lengths;
    unsigned int origin, ordinal;
    uint64_t offset = 0;
    PyObject *rows = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y#y*II", &ids, &ids_bytes, &lengths, &origin, &ordinal))
        return NULL;
    Py_ssize_t count = lengths.len / 4;
    if (lengths.len % 4 != 0 || ids_bytes != count * ID_BYTES || ordinal > UINT16_MAX)
        PyErr_SetString(PyExc_ValueError, "there is not one length to each id, or the ordinal has more than 16 bits");
    else
        rows = PyBytes_FromStringAndSize(NULL, count * CHUNK_ROW_BYTES);
    for (Py_ssize_t i = 0; rows != NULL && i < count; i++) {
        uint8_t *row = (uint8_t *)PyBytes_AsString(rows) + i * CHUNK_ROW_BYTES;
        uint32_t length;
        memcpy(&length, (const uint8_t *)lengths.buf + 4 * i, sizeof length); /* in the machine's own order */
        memcpy(row, ids + i * ID_BYTES, ID_BYTES);
        store_little_endian(row + ID_BYTES, origin, 4);
        store_little_endian(row + ID_BYTES + 4, (uint64_t)ordinal << 48 | offset << 24 | length, 8);
        offset += length;
    }
    PyBuffer_Release(&lengths);
    return rows;
}

static PyMethodDef methods[] = {
    {"probe_ids", probe_ids, METH_VARARGS,
     "probe_ids(filters, ids) -> a byte for each id: 0 if no filter may hold it, 1 for the first, 255 for several."},
    {"blocks_of", blocks_of, METH_VARARGS,
     "blocks_of(fences, fence_bytes, ids) -> for each id the number of the block in which its rows can begin."},
    {"frames_of", frames_of, METH_VARARGS,
     "frames_of(blocks, ids) -> for each id the frame (number of the origin, ordinal: 6 bytes) of its first row in\n"
     "the block of the same place, or None."},
    {"chunk_rows", chunk_rows, METH_VARARGS,
     "chunk_rows(ids, lengths, origin_number, ordinal) -> the rows of the chunks of one frame."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "repo_store._lookups", "Many rows at once.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__lookups(void);
PyMODINIT_FUNC PyInit__lookups(void)
{
    return PyModuleDef_Init(&definition);
}
