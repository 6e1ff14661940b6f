/*
 * Instances of heap types, made and given back as the stable ABI asks for: the type's own slots do
 * the work, and an instance holds a reference on its type.
 */
#ifndef HOLDFAST_HEAP_TYPE_H
#define HOLDFAST_HEAP_TYPE_H

#include <Python.h>

/* Give back the reference that an instance holds on its heap type, and its memory. */
static inline void
release(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc tp_free = (freefunc)PyType_GetSlot(type, Py_tp_free);

	tp_free(self);
	Py_DECREF(type);
}

static inline PyObject *
allocate(PyTypeObject *type)
{
	allocfunc tp_alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);

	return (tp_alloc(type, 0));
}

#endif
