/* The shortcut: answers that the application has ready, given without an environ, a parser or a response object.
 *
 * Ours, not meinheld's: install.py lets server.c include it, whose static variables and functions it uses.
 *
 * Python registers a path, a function and the names of request fields: server.set_shortcut("/todos", answer, names).
 * A request that is read in one piece, is nothing but a GET of that path over HTTP/1.1 that keeps its connection, and
 * has no field that changes how a request is read, is put to the function: answer(query, value, ...), with the text
 * behind the "?" ("" without one) and the values of the fields named (None: not sent). It returns None, or a tuple of
 * status line and fields, a Content-Length line ("" for an answer without a body), and the body: bytes, or an object
 * with fileno() and a length, sent from that file.
 *
 * Everything else takes the ordinary way, as if this were not here: so it must recognise less than http_parser, and
 * never read anything differently. When in doubt, decline.
 */

#include <sys/uio.h>

/* All three are below what the ordinary way allows, so that it refuses what is too long or too many. */
#define SHORTCUT_REQUEST_MAX 8000
#define SHORTCUT_FIELDS_MAX 100
#define SHORTCUT_FIELD_NAME_MAX 32
#define SHORTCUT_NAMES_MAX 8
#define SHORTCUT_PATH_MAX 64
/* Of an answer, all but the body; a longer one takes the ordinary way. */
#define SHORTCUT_HEAD_MAX 4096

#ifndef MSG_NOSIGNAL /* not Linux: the server ignores SIGPIPE anyway */
#define MSG_NOSIGNAL 0
#endif
#ifndef MSG_MORE
#define MSG_MORE 0
#endif

/* What may be in a field's name, folded as the environ folds it: one case, and no difference between "-" and "_".
 * 0: declined. */
static unsigned char shortcut_folded[256];

static PyObject *shortcut_answer = NULL;
static char shortcut_start[SHORTCUT_PATH_MAX + 8]; /* "GET /path" */
static size_t shortcut_start_len;

typedef struct {
  char text[SHORTCUT_FIELD_NAME_MAX];
  size_t len;
} shortcut_name;

static shortcut_name shortcut_names[SHORTCUT_NAMES_MAX];
static int shortcut_names_count;

/* A field that http_parser or server.c acts upon. (Connection, too; it is looked at below.) */
static const shortcut_name shortcut_declined[] = {
    {"content-length", 14}, {"transfer-encoding", 17}, {"expect", 6},
    {"upgrade", 7},         {"proxy-connection", 16},
};

/* An answer, of which some may have been sent. */
typedef struct {
  client_t *client;
  PyObject *answer; /* owned: the body lives as long as it */
  const char *body; /* NULL: it is in the file */
  int file;
  size_t head_len;
  size_t body_len;
  size_t sent;
  char head[SHORTCUT_HEAD_MAX];
} shortcut_write;

static int shortcut_is(const shortcut_name *name, const char *folded, size_t len) {
  return name->len == len && memcmp(name->text, folded, len) == 0;
}

/* Read a request. Returns 1 and sets query and values (pointers into the request, NULL for what was not sent), or 0. */
static int shortcut_recognise(const char *p, size_t len, struct iovec *query, struct iovec *values) {
  static const char version[] = " HTTP/1.1\r\n";
  const char *end = p + len;
  int fields, i;

  if (len > SHORTCUT_REQUEST_MAX || len < shortcut_start_len + sizeof(version) + 1 ||
      memcmp(p, shortcut_start, shortcut_start_len) != 0 || memcmp(end - 4, "\r\n\r\n", 4) != 0) {
    return 0;
  }
  p += shortcut_start_len;
  /* From here on no loop can pass the empty line at the end: neither a target, nor a name, nor a value may have CR. */
  query->iov_base = (char *)p;
  query->iov_len = 0;
  if (*p == '?') {
    const char *begin = ++p;
    while (*p > ' ' && *p < 127 && *p != '#') {
      p++;
    }
    if (p == begin) {
      return 0;
    }
    query->iov_base = (char *)begin;
    query->iov_len = p - begin;
  }
  if ((size_t)(end - p) < sizeof(version) + 1 || memcmp(p, version, sizeof(version) - 1) != 0) {
    return 0;
  }
  p += sizeof(version) - 1;

  for (fields = 0; *p != '\r'; fields++) {
    char name[SHORTCUT_FIELD_NAME_MAX];
    const char *value;
    size_t name_len = 0;
    unsigned char folded;

    if (fields == SHORTCUT_FIELDS_MAX) {
      return 0;
    }
    for (; (folded = shortcut_folded[(unsigned char)*p]) != 0; p++) {
      if (name_len < sizeof(name)) {
        name[name_len] = folded;
      }
      name_len++;
    }
    if (name_len == 0 || *p != ':') {
      return 0;
    }
    for (p++; *p == ' ' || *p == '\t'; p++) {
    }
    for (value = p; (*p >= ' ' && *p < 127) || *p == '\t'; p++) {
    }
    /* Lines that are continued begin with white space, which is in no name. */
    if (p == value || p[0] != '\r' || p[1] != '\n') {
      return 0;
    }
    for (i = 0; i < shortcut_names_count; i++) {
      if (shortcut_is(&shortcut_names[i], name, name_len)) {
        if (values[i].iov_base != NULL) { /* Twice: the environ has both in one. */
          return 0;
        }
        values[i].iov_base = (char *)value;
        values[i].iov_len = p - value;
      }
    }
    for (i = 0; i < (int)(sizeof(shortcut_declined) / sizeof(shortcut_declined[0])); i++) {
      if (shortcut_is(&shortcut_declined[i], name, name_len)) {
        return 0;
      }
    }
    if (name_len == 10 && memcmp(name, "connection", 10) == 0 &&
        (p - value != 10 || strncasecmp(value, "keep-alive", 10) != 0)) {
      return 0;
    }
    p += 2;
  }
  /* Behind it nothing: a second request, or a body, is for the parser. */
  return p + 2 == end && p[1] == '\n';
}

static PyObject *shortcut_text(const struct iovec *value) {
  if (value->iov_base == NULL) {
    Py_RETURN_NONE;
  }
  return PyUnicode_DecodeLatin1(value->iov_base, value->iov_len, NULL);
}

/* Ask the application. Returns a new reference to its answer, or NULL (and no error set): the ordinary way. */
static PyObject *shortcut_ask(const struct iovec *query, const struct iovec *values) {
  PyObject *args[1 + SHORTCUT_NAMES_MAX];
  PyObject *answer = NULL;
  int count = 0, i;

  for (i = 0; i <= shortcut_names_count; i++) {
    args[i] = shortcut_text(i == 0 ? query : &values[i - 1]);
    if (args[i] == NULL) {
      break;
    }
    count++;
  }
  if (count == shortcut_names_count + 1) {
    /* It may call set_shortcut. */
    PyObject *function = shortcut_answer;
    Py_INCREF(function);
    answer = PyObject_Vectorcall(function, args, count, NULL);
    Py_DECREF(function);
  }
  for (i = 0; i < count; i++) {
    Py_DECREF(args[i]);
  }
  if (answer == NULL) {
    call_error_logger();
  } else if (answer == Py_None) {
    Py_CLEAR(answer);
  }
  return answer;
}

static int shortcut_append(shortcut_write *w, const char *text, size_t len) {
  if (len > sizeof(w->head) - w->head_len) {
    return 0;
  }
  memcpy(w->head + w->head_len, text, len);
  w->head_len += len;
  return 1;
}

/* Lay out the answer; w->answer is borrowed. Returns 1, 0 when it is too long, or -1 with a Python error. */
static int shortcut_lay_out(shortcut_write *w, PyObject *answer) {
  static const char keep_alive[] = "Connection: Keep-Alive\r\n\r\n";
  static const char server[] = "\r\nServer: " SERVER "\r\nDate: ";
  PyObject *fields, *length, *body;

  if (!PyTuple_Check(answer) || PyTuple_GET_SIZE(answer) != 3) {
    PyErr_SetString(PyExc_TypeError, "the answer must be a tuple of three");
    return -1;
  }
  fields = PyTuple_GET_ITEM(answer, 0);
  length = PyTuple_GET_ITEM(answer, 1);
  body = PyTuple_GET_ITEM(answer, 2);
  if (!PyBytes_Check(fields) || !PyBytes_Check(length)) {
    PyErr_SetString(PyExc_TypeError, "status, fields and length must be bytes");
    return -1;
  }
  w->answer = answer;
  w->head_len = w->sent = 0;
  w->body = NULL;
  w->file = -1;
  if (PyBytes_Check(body)) {
    w->body = PyBytes_AS_STRING(body);
    w->body_len = PyBytes_GET_SIZE(body);
  } else {
    Py_ssize_t size = PyObject_Size(body);
    w->file = PyObject_AsFileDescriptor(body);
    if (size < 0 || w->file < 0) {
      return -1;
    }
    w->body_len = size;
  }
  return shortcut_append(w, "HTTP/1.1 ", 9) &&
         shortcut_append(w, PyBytes_AS_STRING(fields), PyBytes_GET_SIZE(fields)) &&
         shortcut_append(w, server, sizeof(server) - 1) && shortcut_append(w, (const char *)http_time, 29) &&
         shortcut_append(w, "\r\n", 2) && shortcut_append(w, PyBytes_AS_STRING(length), PyBytes_GET_SIZE(length)) &&
         shortcut_append(w, keep_alive, sizeof(keep_alive) - 1);
}

static ssize_t shortcut_send_once(const shortcut_write *w) {
  int fd = w->client->fd;
  const char *head = w->head + w->sent;

  if (w->sent < w->head_len && w->file < 0) {
    struct iovec parts[2] = {{(char *)head, w->head_len - w->sent}, {(char *)w->body, w->body_len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    return sendmsg(fd, &message, MSG_NOSIGNAL);
  }
  if (w->sent < w->head_len) {
    /* In one packet with the beginning of the file. */
    return send(fd, head, w->head_len - w->sent, MSG_NOSIGNAL | MSG_MORE);
  }
  if (w->file < 0) {
    size_t at = w->sent - w->head_len;
    return send(fd, w->body + at, w->body_len - at, MSG_NOSIGNAL);
  }
#ifdef linux
  off_t at = w->sent - w->head_len;
  return sendfile(fd, w->file, &at, w->body_len - at);
#else
  errno = ENOSYS;
  return -1;
#endif
}

/* Send what the socket takes. */
static response_status shortcut_send(shortcut_write *w) {
  size_t total = w->head_len + w->body_len;
  while (w->sent < total) {
    ssize_t sent;
    Py_BEGIN_ALLOW_THREADS
    sent = shortcut_send_once(w);
    Py_END_ALLOW_THREADS
    if (sent > 0) {
      w->sent += sent;
    } else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return STATUS_SUSPEND;
    } else if (sent == 0 || errno != EINTR) { /* 0: a file that is shorter than it said */
      return STATUS_ERROR;
    }
  }
  return STATUS_OK;
}

static void shortcut_unwatch(int fd) {
  if (picoev_is_active(main_loop, fd) && !picoev_del(main_loop, fd)) {
    activecnt--;
  }
}

static void shortcut_watch(int fd, int events, int timeout_s, picoev_handler *callback, void *arg) {
  shortcut_unwatch(fd);
  if (!picoev_add(main_loop, fd, events, timeout_s, callback, arg)) {
    activecnt++;
  }
}

/* The socket has room for more, or has had none for SEND_TIMEOUT_SECS. */
static void shortcut_write_callback(picoev_loop *loop, int fd, int events, void *cb_arg) {
  shortcut_write *w = cb_arg;
  client_t *client = w->client;
  response_status status = (events & PICOEV_TIMEOUT) != 0 ? STATUS_ERROR : shortcut_send(w);

  if (status == STATUS_SUSPEND) {
    picoev_set_timeout(loop, fd, SEND_TIMEOUT_SECS);
    return;
  }
  Py_DECREF(w->answer);
  PyMem_Free(w);
  if (status == STATUS_OK) {
    shortcut_watch(fd, PICOEV_READ, keep_alive_timeout, read_callback, client);
  } else {
    client->keep_alive = 0;
    close_client(client);
  }
}

/* Answer what was just read, if it is a request for the shortcut.
 *
 * Returns 1: take the ordinary way. 0: answered, the client may ask again. -1: the answer is being written, or the
 * client is gone; either way nobody else may touch the client.
 */
static int shortcut_take(client_t *client, const char *buf, size_t len) {
  struct iovec query, values[SHORTCUT_NAMES_MAX] = {{0}};
  shortcut_write w;
  PyObject *answer;
  response_status status;
  int laid_out;

  /* Only where a request begins: the parser has seen nothing of this one, and none waits before it. While the server
   * stops, answers must say Connection: close. */
  if (shortcut_answer == NULL || !is_keep_alive || is_write_access_log || !client->complete ||
      client->current_req != NULL || client->request_queue->size > 0 ||
      !shortcut_recognise(buf, len, &query, values)) {
    return 1;
  }
  answer = shortcut_ask(&query, values);
  if (answer == NULL) {
    return 1;
  }
  laid_out = shortcut_lay_out(&w, answer);
  if (laid_out != 1) {
    Py_DECREF(answer);
    if (laid_out < 0) {
      call_error_logger();
    }
    return 1;
  }
  w.client = client;
  client->keep_alive = 1;
  status = shortcut_send(&w);
  if (status == STATUS_SUSPEND) {
    shortcut_write *rest = PyMem_Malloc(sizeof(w));
    if (rest != NULL) {
      *rest = w;
      /* Not read meanwhile: nobody asks faster than he reads. */
      shortcut_watch(client->fd, PICOEV_WRITE, SEND_TIMEOUT_SECS, shortcut_write_callback, rest);
      return -1; /* The answer is the callback's now. */
    }
    status = STATUS_ERROR;
  }
  Py_DECREF(answer);
  if (status == STATUS_ERROR) {
    client->keep_alive = 0;
    close_client(client);
    return -1;
  }
  if (picoev_is_active(main_loop, client->fd)) {
    picoev_set_timeout(main_loop, client->fd, keep_alive_timeout);
  }
  return 0;
}

/* set_shortcut(path, answer, names): see above. The names are in lower case, with dashes. answer None: no more. */
static PyObject *meinheld_set_shortcut(PyObject *self, PyObject *args) {
  const char *path;
  Py_ssize_t path_len, i;
  PyObject *path_text, *answer, *names;
  int c;

  if (!PyArg_ParseTuple(args, "UOO!:set_shortcut", &path_text, &answer, &PyTuple_Type, &names)) {
    return NULL;
  }
  path = PyUnicode_AsUTF8AndSize(path_text, &path_len);
  if (path == NULL) {
    return NULL;
  }
  if (path_len > SHORTCUT_PATH_MAX || PyTuple_GET_SIZE(names) > SHORTCUT_NAMES_MAX) {
    PyErr_SetString(PyExc_ValueError, "the path is too long, or there are too many names");
    return NULL;
  }
  Py_CLEAR(shortcut_answer);
  for (i = 0; i < PyTuple_GET_SIZE(names); i++) {
    Py_ssize_t len;
    const char *text = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(names, i), &len);
    if (text == NULL) {
      return NULL;
    }
    if (len > SHORTCUT_FIELD_NAME_MAX) {
      PyErr_SetString(PyExc_ValueError, "a name is too long");
      return NULL;
    }
    memcpy(shortcut_names[i].text, text, len);
    shortcut_names[i].len = len;
  }
  shortcut_names_count = (int)PyTuple_GET_SIZE(names);
  shortcut_start_len = 4 + path_len;
  memcpy(shortcut_start, "GET ", 4);
  memcpy(shortcut_start + 4, path, path_len);
  for (c = 0; c < 128; c++) {
    int is_name = isalnum(c) || c == '-' || c == '_';
    shortcut_folded[c] = is_name ? (c == '_' ? '-' : tolower(c)) : 0;
  }
  if (answer != Py_None) {
    Py_INCREF(answer);
    shortcut_answer = answer;
  }
  Py_RETURN_NONE;
}
