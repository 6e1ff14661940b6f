/* Python's way to many_hashes.c: arguments, buffers and the interpreter lock, nothing else. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "many_hashes.h"

#define ROW_BYTES_MAX 128
#define LOCK_FREE_BYTES 4096 /* less is done before another thread would have got the lock */

static int is_kernel(int kernel)
{
    if (kernel >= 0 && kernel < kernels_here())
        return 1;
    PyErr_SetString(PyExc_ValueError, "no such kernel on this machine");
    return 0;
}

static PyObject *hashes(PyObject *module, PyObject *args)
{
    Py_buffer data, lengths;
    const uint8_t *key;
    Py_ssize_t key_bytes;
    int kernel, result = 0;
    PyObject *out = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y#y*y*i", &key, &key_bytes, &data, &lengths, &kernel))
        return NULL;
    size_t count = (size_t)lengths.len / 4;
    uint64_t total = 0;
    const uint32_t *each = lengths.buf;
    if (key_bytes != KEY_BYTES || lengths.len % 4 != 0 || (count > 0 && (uintptr_t)each % 4 != 0)) {
        PyErr_SetString(PyExc_ValueError, "a key has 32 bytes, and lengths are an array of u32");
    } else if (is_kernel(kernel)) {
        for (size_t i = 0; i < count; i++)
            total += each[i];
        if (total != (uint64_t)data.len)
            PyErr_SetString(PyExc_ValueError, "the lengths do not add up to the bytes");
        else
            out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * HASH_BYTES));
    }
    if (out != NULL) {
        uint8_t *target = (uint8_t *)PyBytes_AsString(out);
        if (total < LOCK_FREE_BYTES) {
            result = hash_all(key, kernel, data.buf, each, count, target);
        } else {
            Py_BEGIN_ALLOW_THREADS
            result = hash_all(key, kernel, data.buf, each, count, target);
            Py_END_ALLOW_THREADS
        }
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&lengths);
    if (result < 0) {
        Py_DECREF(out);
        return PyErr_NoMemory();
    }
    return out;
}

static PyObject *row_sum(PyObject *module, PyObject *args)
{
    Py_buffer rows, names;
    const uint8_t *key;
    Py_ssize_t key_bytes, row_bytes, index_at, name_bytes;
    uint8_t sum[HASH_BYTES] = {0};
    int kernel, result = 0;
    unsigned char section;
    (void)module;
    if (!PyArg_ParseTuple(args, "y#by*nny*ni", &key, &key_bytes, &section, &rows, &row_bytes, &index_at, &names,
                          &name_bytes, &kernel))
        return NULL;
    if (key_bytes != KEY_BYTES || row_bytes < 4 || row_bytes > ROW_BYTES_MAX || rows.len % row_bytes != 0 ||
        index_at < 0 || index_at > row_bytes - 4 || name_bytes < 1 || name_bytes > KEY_BYTES ||
        names.len % name_bytes != 0) {
        PyErr_SetString(PyExc_ValueError, "the key, the rows or the names have no whole number of what they should");
    } else if (is_kernel(kernel)) {
        struct sum_of of = {
            rows.buf, names.buf, (size_t)(rows.len / row_bytes), (size_t)row_bytes, (size_t)index_at,
            (size_t)name_bytes, (size_t)(names.len / name_bytes), section,
        };
        Py_BEGIN_ALLOW_THREADS
        result = sum_all(key, kernel, &of, sum);
        Py_END_ALLOW_THREADS
        if (result == -1)
            PyErr_NoMemory();
        else if (result == -2)
            PyErr_SetString(PyExc_IndexError, "a row has a number that stands for no name");
    }
    PyBuffer_Release(&rows);
    PyBuffer_Release(&names);
    return PyErr_Occurred() ? NULL : PyBytes_FromStringAndSize((const char *)sum, sizeof sum);
}

static PyObject *kernels(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return PyLong_FromLong(kernels_here());
}

static PyMethodDef methods[] = {
    {"hashes", hashes, METH_VARARGS,
     "hashes(key, data, lengths, kernel) -> 32 bytes each: keyed BLAKE3 of the pieces, of u32 lengths each, that data\n"
     "consists of."},
    {"row_sum", row_sum, METH_VARARGS,
     "row_sum(key, section, rows, row_bytes, index_at, names, name_bytes, kernel) -> 32 bytes: the sum modulo 2^256\n"
     "of the keyed hashes of section || row, the u32 at index_at replaced by the name that it stands for."},
    {"kernels", kernels, METH_NOARGS, "kernels() -> how many kernels this machine can run; the last is the fastest."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "repo_store._hashes", "Keyed BLAKE3 of many short pieces.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__hashes(void);
PyMODINIT_FUNC PyInit__hashes(void)
{
    return PyModuleDef_Init(&definition);
}
