"""Loaded by gunicorn from its working directory; what it says is in config/gunicorn_conf.py."""

from config.gunicorn_conf import *  # noqa: F403
