/* Stopping without cutting anybody off, for todo_api/meinheld_worker.py. Included by server.c; see install.py.
 *
 * Both are for the thread of the loop, and not from a request: meinheld may be about to accept the next one.
 */

/* let_go(fd, instead): accept whoever waits on a listening socket, and put another file in its place.
 *
 * Whom the kernel has accepted by the time a socket's last descriptor goes is reset, so that nobody can say whether a
 * request of theirs was begun. Between the call that finds nobody waiting and the one that closes there is nothing here,
 * no Python above all: other threads would run for milliseconds.
 */
static PyObject *meinheld_let_go(PyObject *self, PyObject *args) {
  int fd, instead, client_fd;
  if (!PyArg_ParseTuple(args, "ii:let_go", &fd, &instead)) {
    return NULL;
  }
  while (main_loop != NULL) {
    struct sockaddr_in address;
    socklen_t size = sizeof(address);
    client_t *client;
#if linux && defined(SOCK_NONBLOCK) && defined(SOCK_CLOEXEC)
    client_fd = accept4(fd, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    client_fd = accept(fd, (struct sockaddr *)&address, &size);
#endif
    if (client_fd == -1) {
      if (errno == EINTR || errno == ECONNABORTED) {
        continue;
      }
      break;
    }
    if (client_fd >= max_fd || setup_sock(client_fd) == -1) {
      close(client_fd);
      continue;
    }
    client = new_client_t(client_fd, inet_ntoa(address.sin_addr), ntohs(address.sin_port));
    init_parser(client, server_name, server_port);
    if (picoev_add(main_loop, client_fd, PICOEV_READ, keep_alive_timeout, read_callback, (void *)client) == 0) {
      activecnt++;
    }
  }
  if (dup2(instead, fd) == -1) {
    return PyErr_SetFromErrno(PyExc_OSError);
  }
  Py_RETURN_NONE;
}

/* close_idle(timeout_s): close the connections on which no request has begun, and none does within this time. */
static PyObject *meinheld_close_idle(PyObject *self, PyObject *args) {
  int timeout_s, fd;
  void *watcher;
  if (!PyArg_ParseTuple(args, "i:close_idle", &timeout_s)) {
    return NULL;
  }
  for (fd = 0; main_loop != NULL && fd < max_fd; fd++) {
    if (picoev_is_active(main_loop, fd) && picoev_get_callback(main_loop, fd, &watcher) == read_callback &&
        ((client_t *)watcher)->complete) {
      picoev_set_timeout(main_loop, fd, timeout_s);
    }
  }
  Py_RETURN_NONE;
}
