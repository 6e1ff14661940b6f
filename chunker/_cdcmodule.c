/*
 * chunker._cdc: the binding.  Arguments, buffers and the interpreter lock; nothing else.
 *
 * Buffers are borrowed (PyBUF_SIMPLE) and never copied; the lock is released for large ones.  A
 * Context is immutable and may be used by many threads at once.  A Stream is not: a second
 * thread that enters one while it is fed is refused, since the state would be torn.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "cdc.h"
#include "heap_type.h"
#include "phte.h"

/* Below this, releasing the lock costs more than it gives. */
#define UNLOCKED_BYTES_MIN ((Py_ssize_t)16384)

enum { CUTS_CAPACITY = 512 };	/* cuts found between two turns with the lock */

typedef struct {
	PyObject_HEAD
	struct cdc cdc;
} Context;

typedef struct {
	PyObject_HEAD
	Context *context;
	struct cdc_state state;
	int busy, ended;
} Stream;

typedef struct {
	PyTypeObject *context_type, *stream_type;
} Module;

/* Append the cuts to a list of Python numbers. */
static int
append_cuts(PyObject *list, const uint64_t *cuts, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		PyObject *cut = PyLong_FromUnsignedLongLong(cuts[i]);
		int failed = cut == NULL || PyList_Append(list, cut) < 0;

		Py_XDECREF(cut);
		if (failed)
			return (-1);
	}
	return (0);
}

/* Feed a whole buffer; return the list of the cuts, or NULL with the state as it was before. */
static PyObject *
feed_buffer(const struct cdc *cdc, struct cdc_state *state, PyObject *source)
{
	struct cdc_state moved = *state;
	uint64_t cuts[CUTS_CAPACITY];
	PyObject *list = NULL;
	Py_buffer view;

	if (PyObject_GetBuffer(source, &view, PyBUF_SIMPLE) < 0)
		return (NULL);
	if ((list = PyList_New(0)) == NULL)
		goto out;
	for (Py_ssize_t at = 0; at < view.len;) {
		const uint8_t *data = (const uint8_t *)view.buf + at;
		size_t size = (size_t)(view.len - at), consumed, count;

		if (view.len >= UNLOCKED_BYTES_MIN) {
			Py_BEGIN_ALLOW_THREADS
			count = cdc_feed(cdc, &moved, data, size, cuts, CUTS_CAPACITY, &consumed);
			Py_END_ALLOW_THREADS
		} else
			count = cdc_feed(cdc, &moved, data, size, cuts, CUTS_CAPACITY, &consumed);
		at += (Py_ssize_t)consumed;
		if (append_cuts(list, cuts, count) < 0) {
			Py_CLEAR(list);
			goto out;
		}
	}
	*state = moved;
out:
	PyBuffer_Release(&view);
	return (list);
}

static PyObject *
context_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	int algorithm;
	long long size_min, size_avg, size_max, phase;
	const char *table, *aes_key, *kernel, *wrong;
	Py_ssize_t table_size, aes_key_size;
	Context *self;

	if (kwargs != NULL && PyDict_Size(kwargs) != 0) {
		PyErr_SetString(PyExc_TypeError, "Context takes no keyword arguments");
		return (NULL);
	}
	if (!PyArg_ParseTuple(args, "iLLLLy#y#z:Context", &algorithm, &size_min, &size_avg,
	    &size_max, &phase, &table, &table_size, &aes_key, &aes_key_size, &kernel))
		return (NULL);
	if ((self = (Context *)allocate(type)) == NULL)
		return (NULL);
	/* A negative size becomes one far above the limits. */
	if (algorithm == CDC_FIXED)
		wrong = cdc_init_fixed(&self->cdc, (uint64_t)size_max, (uint64_t)phase);
	else if (table_size != CDC_TABLE_BYTES)
		wrong = "the table is not 2048 bytes long";
	else if (algorithm == CDC_GEAR64)
		wrong = cdc_init_gear(&self->cdc, (uint64_t)size_min, (uint64_t)size_avg,
		    (uint64_t)size_max, (const uint8_t *)table);
	else if (algorithm != CDC_PHTE64)
		wrong = "no such algorithm";
	else if (aes_key_size != CDC_AES_KEY_BYTES)
		wrong = "the AES key is not 16 bytes long";
	else
		wrong = cdc_init_phte(&self->cdc, (uint64_t)size_min, (uint64_t)size_avg,
		    (uint64_t)size_max, (const uint8_t *)table, (const uint8_t *)aes_key, kernel);
	if (wrong != NULL) {
		PyErr_SetString(PyExc_ValueError, wrong);
		Py_DECREF(self);
		return (NULL);
	}
	return ((PyObject *)self);
}

static void
context_dealloc(PyObject *self)
{
	cdc_wipe(&((Context *)self)->cdc, sizeof(struct cdc));
	release(self);
}

static PyObject *
context_cuts(PyObject *self, PyObject *source)
{
	struct cdc_state state = { 0 };
	PyObject *list = feed_buffer(&((Context *)self)->cdc, &state, source);
	uint64_t cut;

	if (list != NULL && cdc_end(&state, &cut) == 1 && append_cuts(list, &cut, 1) < 0)
		Py_CLEAR(list);
	return (list);
}

static PyObject *
context_kernel(PyObject *self, void *closure)
{
	(void)closure;
	return (PyUnicode_FromString(((Context *)self)->cdc.kernel));
}

/* Set an error and return 0 unless the stream is free to be used. */
static int
stream_ready(Stream *self)
{
	if (self->busy)
		PyErr_SetString(PyExc_RuntimeError, "the stream is being fed by another thread");
	else if (self->ended)
		PyErr_SetString(PyExc_ValueError, "the stream has ended");
	else
		return (1);
	return (0);
}

static PyObject *
stream_make(PyTypeObject *type, Context *context, const struct cdc_state *state)
{
	Stream *self = (Stream *)allocate(type);

	if (self == NULL)
		return (NULL);
	Py_INCREF((PyObject *)context);
	self->context = context;
	if (state != NULL)
		self->state = *state;
	return ((PyObject *)self);
}

static PyObject *
stream_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	Module *module = PyType_GetModuleState(type);
	PyObject *context;

	if (module == NULL)
		return (NULL);
	if (kwargs != NULL && PyDict_Size(kwargs) != 0) {
		PyErr_SetString(PyExc_TypeError, "Stream takes no keyword arguments");
		return (NULL);
	}
	if (!PyArg_ParseTuple(args, "O!:Stream", module->context_type, &context))
		return (NULL);
	return (stream_make(type, (Context *)context, NULL));
}

static void
stream_dealloc(PyObject *self)
{
	cdc_wipe(&((Stream *)self)->state, sizeof(struct cdc_state));
	Py_XDECREF((PyObject *)((Stream *)self)->context);
	release(self);
}

static PyObject *
stream_feed(PyObject *object, PyObject *source)
{
	Stream *self = (Stream *)object;
	PyObject *list;

	if (!stream_ready(self))
		return (NULL);
	self->busy = 1;
	list = feed_buffer(&self->context->cdc, &self->state, source);
	self->busy = 0;
	return (list);
}

static PyObject *
stream_end(PyObject *object, PyObject *unused)
{
	Stream *self = (Stream *)object;
	PyObject *list;
	uint64_t cut;

	(void)unused;
	if (!stream_ready(self) || (list = PyList_New(0)) == NULL)
		return (NULL);
	if (cdc_end(&self->state, &cut) == 1 && append_cuts(list, &cut, 1) < 0)
		Py_CLEAR(list);
	else
		self->ended = 1;
	return (list);
}

static PyObject *
stream_copy(PyObject *object, PyObject *unused)
{
	Stream *self = (Stream *)object;

	(void)unused;
	if (!stream_ready(self))
		return (NULL);
	return (stream_make(Py_TYPE(object), self->context, &self->state));
}

static PyObject *
module_kernels(PyObject *self, PyObject *unused)
{
	PyObject *list = PyList_New(0);

	(void)self, (void)unused;
	for (const struct phte_kernel *k = phte_kernels; list != NULL && k->name != NULL; k++) {
		PyObject *name = k->possible() ? PyUnicode_FromString(k->name) : NULL;

		if ((name != NULL && PyList_Append(list, name) < 0) || PyErr_Occurred())
			Py_CLEAR(list);
		Py_XDECREF(name);
	}
	return (list);
}

static PyObject *
module_encrypt_batch(PyObject *self, PyObject *args)
{
	const char *name, *aes_key, *bytes;
	Py_ssize_t aes_key_size, size;
	const struct phte_kernel *kernel;
	uint64_t blocks[2 * PHTE_BATCH] = { 0 }, answers[PHTE_BATCH];
	struct cdc cdc = { 0 };
	PyObject *list;

	(void)self;
	if (!PyArg_ParseTuple(args, "sy#y#:encrypt_batch", &name, &aes_key, &aes_key_size, &bytes,
	    &size))
		return (NULL);
	kernel = phte_kernel_find(name);
	if (kernel == NULL || aes_key_size != CDC_AES_KEY_BYTES || size != sizeof(blocks)) {
		PyErr_SetString(PyExc_ValueError, "encrypt_batch: unknown kernel or wrong lengths");
		return (NULL);
	}
	for (Py_ssize_t i = 0; i < size; i++)
		blocks[i / 8] |= (uint64_t)(uint8_t)bytes[i] << (8 * (i % 8));
	phte_expand_key(&cdc, (const uint8_t *)aes_key);
	phte_encrypt_batch(kernel, &cdc, blocks, answers);
	cdc_wipe(&cdc, sizeof(cdc));
	if ((list = PyList_New(0)) != NULL && append_cuts(list, answers, PHTE_BATCH) < 0)
		Py_CLEAR(list);
	return (list);
}

static PyMethodDef context_methods[] = {
	{ "cuts", context_cuts, METH_O, "Cut a whole stream." },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef context_getters[] = {
	{ "kernel", context_kernel, NULL, "The name of the kernel that runs.", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot context_slots[] = {
	{ Py_tp_doc, "Parameters and tables, immutable." },
	{ Py_tp_new, context_new },
	{ Py_tp_dealloc, context_dealloc },
	{ Py_tp_methods, context_methods },
	{ Py_tp_getset, context_getters },
	{ 0, NULL },
};

static PyType_Spec context_spec = {
	"chunker._cdc.Context", sizeof(Context), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	context_slots,
};

static PyMethodDef stream_methods[] = {
	{ "feed", stream_feed, METH_O, "Return the absolute offsets of the cuts in these bytes." },
	{ "end", stream_end, METH_NOARGS, "Return the last cut, if bytes follow the one before." },
	{ "copy", stream_copy, METH_NOARGS, "Return a fork that goes on by itself." },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot stream_slots[] = {
	{ Py_tp_doc, "Where a stream stands." },
	{ Py_tp_new, stream_new },
	{ Py_tp_dealloc, stream_dealloc },
	{ Py_tp_methods, stream_methods },
	{ 0, NULL },
};

static PyType_Spec stream_spec = {
	"chunker._cdc.Stream", sizeof(Stream), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	stream_slots,
};

static int
module_exec(PyObject *self)
{
	Module *module = PyModule_GetState(self);

	module->context_type = (PyTypeObject *)PyType_FromModuleAndSpec(self, &context_spec, NULL);
	module->stream_type = (PyTypeObject *)PyType_FromModuleAndSpec(self, &stream_spec, NULL);
	if (module->context_type == NULL || module->stream_type == NULL)
		return (-1);
	if (PyModule_AddType(self, module->context_type) < 0)
		return (-1);
	return (PyModule_AddType(self, module->stream_type));
}

static int
module_traverse(PyObject *self, visitproc visit, void *arg)
{
	Module *module = PyModule_GetState(self);

	Py_VISIT(module->context_type);
	Py_VISIT(module->stream_type);
	return (0);
}

static int
module_clear(PyObject *self)
{
	Module *module = PyModule_GetState(self);

	Py_CLEAR(module->context_type);
	Py_CLEAR(module->stream_type);
	return (0);
}

static PyMethodDef module_methods[] = {
	{ "kernels", module_kernels, METH_NOARGS, "The phte64 kernels for this CPU, fastest first." },
	{ "encrypt_batch", module_encrypt_batch, METH_VARARGS, "A kernel's answers to 64 blocks." },
	{ NULL, NULL, 0, NULL },
};

static PyModuleDef_Slot module_slots[] = {
	{ Py_mod_exec, module_exec },
	{ 0, NULL },
};

static PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT, "_cdc", "Content-defined chunking in C.", sizeof(Module),
	module_methods, module_slots, module_traverse, module_clear, NULL,
};

PyMODINIT_FUNC
PyInit__cdc(void)
{
	return (PyModuleDef_Init(&module_def));
}
