"""nginx gives up a connection to the API before the API does, or a request could meet one that is just being closed."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def seconds(file: str, pattern: str) -> int:
    [found] = re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)
    return int(found)


def test_nginx_keeps_a_connection_for_less_time_than_the_api():
    nginx_s = seconds("docker/nginx/templates/upstreams.conf.template", r"^ *keepalive_timeout (\d+)s;$")
    assert nginx_s < seconds("config/gunicorn_conf.py", r"^keepalive = (\d+)$")
