#!/usr/bin/env python3
"""Install meinheld, corrected and with greenlets, into the environment of the Python that runs this.

    python scripts/meinheld/install.py [constraints.txt]

meinheld has had no release since 2020. This takes the last one (1.0.2), corrects its source, and installs it as
1.0.2+todo.6. It needs a C compiler and Python's headers, and uses nothing but the standard library and pip,
which installs greenlet first, for its header.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

RELEASE: Final = "meinheld==1.0.2"
VERSION: Final = "1.0.2+todo.6"
# Ours, beside this file.
ADDITIONS: Final = ("shortcut.h", "requests_that_wait.h", "stopping.h")


class Correction(NamedTuple):
    file: str
    old: str
    new: str


CORRECTIONS: Final = (
    # Each connection is watched with a flag that forbids the kernel to change the watch, so that meinheld asks in
    # vain twice after every answer (EPOLL_CTL_MOD, EINVAL; EPOLL_CTL_ADD, EEXIST): 1.2 us of 21. Worse, one that
    # waits to become writable waits for ever. What the flag was for, waking one process for a new connection,
    # costs the others an accept() that finds nothing.
    Correction("meinheld/server/picoev_epoll.c", "ev.events |= EPOLLEXCLUSIVE;", ""),
    # APPSEC: fields behind a chunked body (trailers) read through a null pointer: anybody could end a process.
    # They are refused with 400.
    Correction(
        "meinheld/server/http_request_parser.c",
        """    if (add_header(req) < 0) {
      return -1;
    }
  }
  if (!check_field_name""",
        """    if (req->field == NULL) {
      req->bad_request_code = 400;
      return -1;
    }
    if (add_header(req) < 0) {
      return -1;
    }
  }
  if (!check_field_name""",
    ),
    # APPSEC: the path is percent-decoded twice, so that a proxy in front sees another path (/%256detrics) than the API.
    Correction("meinheld/server/http_request_parser.c", "  slen = urldecode(s0, slen);\n", ""),
    # APPSEC: CONNECT and an unknown Upgrade leave a Python error behind, which turns whatever request comes next, of
    # whomever, into a 500. They are answered 400 without it.
    Correction(
        "meinheld/server/server.c",
        """  PyErr_SetString(PyExc_IOError, "unknow protocol");\n""",
        "",
    ),
    # Only what may wait gets a greenlet: a read costs what it would without them.
    Correction(
        "meinheld/server/server.c",
        """#ifdef WITH_GREENLET
  // new greenlet
""",
        """#ifdef WITH_GREENLET
  if (req->method == HTTP_GET || req->method == HTTP_HEAD) {
    res = PyObject_CallObject(handler, args);
    Py_DECREF(args);
    Py_XDECREF(res);
    return;
  }
  // Nobody reads the next request while this one waits.
  if (picoev_is_active(main_loop, client->fd) &&
      !picoev_del(main_loop, client->fd)) {
    activecnt--;
  }
  // new greenlet
""",
    ),
    # Requests that wait without a descriptor of their own, in greenlets that are used again: see requests_that_wait.h.
    Correction(
        "meinheld/server/server.c",
        """#ifdef WITH_GREENLET
static void resume_greenlet(PyObject *greenlet) {""",
        """#include "requests_that_wait.h"

#ifdef WITH_GREENLET
static void resume_greenlet(PyObject *greenlet) {""",
    ),
    Correction(
        "meinheld/server/server.c",
        """  greenlet = greenlet_new(handler, NULL);
  // set_greenlet
  pyclient->greenlet = greenlet;
  Py_INCREF(pyclient->greenlet);

  res = greenlet_switch(greenlet, args, NULL);
""",
        """  greenlet = request_greenlet();
  if (greenlet == NULL) {
    // Without one it cannot make room while it waits.
    PyErr_Clear();
    res = PyObject_CallObject(handler, args);
    Py_DECREF(args);
    Py_XDECREF(res);
    return;
  }
  pyclient->greenlet = greenlet;
  Py_INCREF(pyclient->greenlet);

  running = pyclient;
  res = greenlet_switch(greenlet, args, NULL);
  running = NULL;
""",
    ),
    Correction(
        "meinheld/server/server.c",
        """  start_response->cli = client;

  current_client = (PyObject *)pyclient;
""",
        """  start_response->cli = client;

  running = pyclient;
  current_client = (PyObject *)pyclient;
""",
    ),
    Correction(
        "meinheld/server/server.c",
        """  start_response->cli = old_client;

  Py_CLEAR(pyclient->args);
""",
        """  running = NULL;
  start_response->cli = old_client;

  Py_CLEAR(pyclient->args);
""",
    ),
    Correction(
        "meinheld/server/server.c",
        """    {"set_error_logger",""",
        """    {"running", meinheld_running, METH_NOARGS, "the request that calls"},
    {"suspend", meinheld_suspend, METH_NOARGS, "serve others until resumed"},
    {"resume", meinheld_resume, METH_O, "go on with a suspended request"},
    {"watch", meinheld_watch, METH_VARARGS, "call when there is something to read"},
    {"set_error_logger",""",
    ),
    # An answer that the client takes too slowly for the socket's buffer: without a greenlet it was cut off. The rest
    # is written when there is room, and SEND_TIMEOUT_SECS pass without any before the client is given up.
    Correction(
        "meinheld/server/server.c",
        """#ifdef WITH_GREENLET
  while (status != STATUS_OK) {
""",
        """#ifdef WITH_GREENLET
  if (status == STATUS_SUSPEND && pyclient->greenlet == NULL) {
    if (picoev_is_active(main_loop, client->fd) &&
        !picoev_del(main_loop, client->fd)) {
      activecnt--;
    }
    if (!picoev_add(main_loop, client->fd, PICOEV_WRITE, SEND_TIMEOUT_SECS,
                    write_callback, (void *)pyclient)) {
      activecnt++;
    }
    Py_RETURN_NONE;
  }
  while (status != STATUS_OK) {
""",
    ),
    Correction(
        "meinheld/server/server.c",
        """#ifndef WITH_GREENLET
static void write_callback(picoev_loop *loop, int fd, int events, void *cb_arg);
#endif
""",
        """#define SEND_TIMEOUT_SECS 60
static void write_callback(picoev_loop *loop, int fd, int events, void *cb_arg);
""",
    ),
    Correction(
        "meinheld/server/server.c",
        """#ifndef WITH_GREENLET
static void write_callback(picoev_loop *loop, int fd, int events,
                           void *cb_arg) {""",
        """static void write_callback(picoev_loop *loop, int fd, int events,
                           void *cb_arg) {""",
    ),
    Correction(
        "meinheld/server/server.c",
        """    if (ret != 0) {
      // ok or die
      close_client(client);
    }
  }
}
#endif
""",
        """    if (ret == STATUS_SUSPEND) {
      picoev_set_timeout(loop, fd, SEND_TIMEOUT_SECS);
      return;
    }
    if (ret == STATUS_ERROR) {
      client->keep_alive = 0;
    }
    close_client(client);
  }
}
""",
    ),
    # A connection goes on being watched while its request is answered: one epoll_ctl less for each.
    Correction(
        "meinheld/server/server.c",
        """  if (finish == 1) {
    if (!picoev_del(main_loop, client->fd)) {
      activecnt--;
      DEBUG("activecnt:%d", activecnt);
    }
    if (check_status_code""",
        """  if (finish == 1) {
    if (check_status_code""",
    ),
    Correction(
        "meinheld/server/server.c",
        """  if (picoev_is_active(main_loop, client->fd)) {
    if (!picoev_del(main_loop, client->fd)) {
      activecnt--;
      DEBUG("activecnt:%d", activecnt);
    }
    DEBUG("picoev_del client:%p fd:%d", client, client->fd);
  }

  clean_client(client);
""",
        """  int is_watched = picoev_is_active(main_loop, client->fd);
  if (is_watched && !(client->keep_alive && client->request_queue->size == 0 &&
                      picoev_get_events(main_loop, client->fd) == PICOEV_READ)) {
    if (!picoev_del(main_loop, client->fd)) {
      activecnt--;
    }
    is_watched = 0;
  }

  clean_client(client);
""",
    ),
    Correction(
        "meinheld/server/server.c",
        """    init_parser(new_client, server_name, server_port);
    ret = picoev_add(main_loop, new_client->fd, PICOEV_READ, keep_alive_timeout,
                     read_callback, (void *)new_client);
    if (ret == 0) {
      activecnt++;
    }
  }
  // clear old client""",
        """    init_parser(new_client, server_name, server_port);
    if (is_watched) {
      void *watcher = (void *)new_client;
      picoev_set_callback(main_loop, new_client->fd, read_callback, &watcher);
      picoev_set_timeout(main_loop, new_client->fd, keep_alive_timeout);
    } else {
      ret = picoev_add(main_loop, new_client->fd, PICOEV_READ,
                       keep_alive_timeout, read_callback, (void *)new_client);
      if (ret == 0) {
        activecnt++;
      }
    }
  }
  // clear old client""",
    ),
    # Answers that the application has ready: see shortcut.h.
    Correction(
        "meinheld/server/server.c",
        "static int read_request(picoev_loop *loop, int fd, client_t *client,",
        """#include "shortcut.h"

static int read_request(picoev_loop *loop, int fd, client_t *client,""",
    ),
    Correction(
        "meinheld/server/server.c",
        """      return parse_http_request(fd, client, buf, r);
""",
        """      ret = shortcut_take(client, buf, r);
      if (ret <= 0) {
        return ret;
      }
      return parse_http_request(fd, client, buf, r);
""",
    ),
    Correction(
        "meinheld/server/server.c",
        """  char buf[READ_BUF_SIZE];
  ssize_t r;
""",
        """  char buf[READ_BUF_SIZE];
  ssize_t r;
  int ret;
""",
    ),
    Correction(
        "meinheld/server/server.c",
        """    {"set_error_logger",""",
        """    {"set_shortcut", meinheld_set_shortcut, METH_VARARGS,
     "set what answers without an environ"},
    {"set_error_logger",""",
    ),
    # A connection is accepted when it is there, not when its request is: at a stop the kernel resets whoever has
    # connected and not sent yet. Of 2,700 connections a second 3.9 were lost in each of 60 stops, and 0.1 with this
    # and let_go below. It costs 5 us where each connection comes alone, and nothing where many come.
    Correction(
        "meinheld/server/util.c",
        "  r = setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &on, sizeof(on));\n",
        "  (void)on;\n",
    ),
    # An end in which nobody is reset, or waited for in vain: see stopping.h.
    Correction(
        "meinheld/server/server.c",
        "static void setup_server_env(void) {",
        """#include "stopping.h"

static void setup_server_env(void) {""",
    ),
    Correction(
        "meinheld/server/server.c",
        """    {"set_error_logger",""",
        """    {"let_go", meinheld_let_go, METH_VARARGS,
     "accept who waits on a socket, and close it"},
    {"close_idle", meinheld_close_idle, METH_VARARGS,
     "close what is not used within a time"},
    {"set_error_logger",""",
    ),
    Correction("setup.py", "include_dirs=[]", 'include_dirs=[os.environ["GREENLET_HEADERS"]]'),
    # The greenlets of then do not build with a Python of today.
    Correction("setup.py", "'greenlet>=0.4.5,<0.5'", "'greenlet>=3,<4'"),
    # So that the API can tell, at its start, which of the two it has.
    Correction("setup.py", 'version="1.0.2"', f'version="{VERSION}"'),
)


def corrected(source: str, correction: Correction) -> str:
    """Return the source with the correction made. Raises ValueError when there is nothing to correct."""
    if correction.old not in source:
        raise ValueError(f"{correction.file} is not that of {RELEASE}")
    return source.replace(correction.old, correction.new)


def main(constraints: str | None) -> None:
    pip = [sys.executable, "-m", "pip"]
    limits = ["-c", constraints] if constraints else []
    subprocess.run([*pip, "install", "-q", *limits, "greenlet"], check=True)
    import_greenlet = "import greenlet, os; print(os.path.dirname(greenlet.__file__))"
    found = subprocess.run(
        [sys.executable, "-c", import_greenlet], check=True, capture_output=True, text=True
    )
    environment = os.environ | {"GREENLET_HEADERS": found.stdout.strip()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        download = ["download", "-q", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, *download, "-d", name, RELEASE], check=True, env=environment)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
        (source,) = (path for path in folder.iterdir() if path.is_dir())
        for correction in CORRECTIONS:
            file = source / correction.file
            file.write_text(corrected(file.read_text(), correction))
        for addition in ADDITIONS:
            shutil.copy(Path(__file__).with_name(addition), source / "meinheld/server")
        # Its own copy is of an older greenlet.
        (source / "meinheld/server/greenlet.h").unlink()
        subprocess.run([*pip, "install", "-q", *limits, str(source)], check=True, env=environment)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
