"""What the API and the worker share. Knows neither Falcon nor gunicorn, reads no environment, opens nothing."""
