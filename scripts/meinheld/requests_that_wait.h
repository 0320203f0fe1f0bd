/* Requests that wait, for todo_api/core/waiting.py. Included by server.c; see install.py.
 *
 * meinheld's own trampoline() lets a request wait for a descriptor, so that each needs one of its own, and four calls of
 * the kernel. These let it wait for being named: any number of them are woken by whoever watches one descriptor.
 *
 * All of it is for the thread of the loop, except running().
 */

/* Whose greenlet runs; NULL in the loop itself, and while a request runs without a greenlet (GET). */
static ClientObject *running = NULL;

/* Making and ending one is left out: greenlets that have answered are kept, as many as waited at one time, and at most
 * these. */
#define IDLE_GREENLETS_MAX 256
static PyObject *idle_greenlets[IDLE_GREENLETS_MAX];
static int idle_greenlets_size = 0;
static PyObject *serve_requests_func = NULL;

/* Hazard here and below: what greenlet_getcurrent and greenlet_getparent return is the caller's to release. */
static int is_running(void) {
  PyObject *current;
  int is_it;
  if (running == NULL) {
    return 0;
  }
  current = greenlet_getcurrent();
  is_it = current == running->greenlet;
  Py_XDECREF(current);
  return is_it;
}

/* Leave the current greenlet for the loop; return what the loop hands over on the way back. */
static PyObject *switch_to_loop(PyObject *current) {
  PyObject *loop, *res;
  loop = greenlet_getparent(current);
  res = greenlet_switch(loop, hub_switch_value, NULL);
  Py_XDECREF(loop);
  return res;
}

static void resume_wsgi_handler(ClientObject *pyclient);

/* What every greenlet runs: one request after the other, each with context variables of its own. */
static PyObject *serve_requests(PyObject *self, PyObject *environ) {
  PyObject *current = greenlet_getcurrent(), *args, *res;
  Py_INCREF(environ);
  for (;;) {
    args = PyTuple_Pack(1, environ);
    Py_DECREF(environ);
    res = args == NULL ? NULL : PyObject_CallObject(get_app_handler(), args);
    Py_XDECREF(args);
    if (res == NULL || idle_greenlets_size == IDLE_GREENLETS_MAX) {
      break;
    }
    Py_CLEAR(res);
    /* APPSEC: or the next request, of whomever, would see what this one has put into its context. */
    if (PyObject_SetAttrString(current, "gr_context", Py_None) < 0) {
      break;
    }
    Py_INCREF(current);
    idle_greenlets[idle_greenlets_size++] = current;
    environ = switch_to_loop(current);
    if (environ == NULL) {
      break;
    }
  }
  Py_DECREF(current);
  return res;
}

static PyMethodDef serve_requests_def = {"_serve_requests", serve_requests, METH_O, 0};

/* Return a greenlet that runs the application for each environ it is switched to with. */
static PyObject *request_greenlet(void) {
  if (idle_greenlets_size > 0) {
    return idle_greenlets[--idle_greenlets_size];
  }
  if (serve_requests_func == NULL) {
    serve_requests_func = PyCFunction_NewEx(&serve_requests_def, NULL, NULL);
    if (serve_requests_func == NULL) {
      return NULL;
    }
  }
  return greenlet_new(serve_requests_func, NULL);
}

/* running() -> the request that calls, or None where it could not be suspended. From any thread. */
static PyObject *meinheld_running(PyObject *self, PyObject *unused) {
  if (!is_running()) {
    Py_RETURN_NONE;
  }
  Py_INCREF(running);
  return (PyObject *)running;
}

/* suspend(): serve others until somebody resumes the request that calls. */
static PyObject *meinheld_suspend(PyObject *self, PyObject *unused) {
  ClientObject *pyclient = running;
  PyObject *res;
  if (!is_running()) {
    PyErr_SetString(PyExc_RuntimeError, "not in a request that can be suspended");
    return NULL;
  }
  /* Its connection is not watched meanwhile, and the loop must not end without it. */
  activecnt++;
  pyclient->suspended = 1;
  running = NULL;
  res = switch_to_loop(pyclient->greenlet);
  if (res == NULL) {
    return NULL;
  }
  Py_DECREF(res);
  Py_RETURN_NONE;
}

/* resume(request): go on with one that was suspended, until it waits again or is answered. Not from a request. */
static PyObject *meinheld_resume(PyObject *self, PyObject *request) {
  ClientObject *pyclient = (ClientObject *)request;
  if (!CheckClientObject(request) || running != NULL || !pyclient->suspended) {
    PyErr_SetString(PyExc_RuntimeError, "not a request that was suspended");
    return NULL;
  }
  activecnt--;
  pyclient->suspended = 0;
  Py_INCREF(request);
  resume_wsgi_handler(pyclient);
  Py_DECREF(request);
  Py_RETURN_NONE;
}

static void watch_callback(picoev_loop *loop, int fd, int events, void *cb_arg) {
  PyObject *res = PyObject_CallObject((PyObject *)cb_arg, NULL);
  if (res == NULL) {
    call_error_logger();
  }
  Py_XDECREF(res);
}

/* watch(fd, callback): call it whenever there is something to read, for as long as the loop runs. In the loop only. */
static PyObject *meinheld_watch(PyObject *self, PyObject *args) {
  int fd;
  PyObject *callback;
  if (!PyArg_ParseTuple(args, "iO:watch", &fd, &callback)) {
    return NULL;
  }
  if (fd < 0 || fd >= max_fd) {
    PyErr_SetString(PyExc_ValueError, "fd out of range");
    return NULL;
  }
  /* Kept for ever: the loop has the only other pointer to it. */
  Py_INCREF(callback);
  if (picoev_add(main_loop, fd, PICOEV_READ, 0, watch_callback, (void *)callback)) {
    Py_DECREF(callback);
    PyErr_SetString(PyExc_OSError, "the loop cannot watch it");
    return NULL;
  }
  Py_RETURN_NONE;
}
