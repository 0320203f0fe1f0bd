"""The small behaviours behind a load shedder."""

from tests.e2e.apps.behaviours import application as behaviours
from todo_api.overload import LoadShedder

application = LoadShedder(behaviours)
