"""The app as ``gunicorn wsgi:app`` finds it."""

from config.settings import load_settings
from todo_api.app import build

app = build(load_settings("api"))
